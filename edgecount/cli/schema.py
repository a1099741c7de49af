"""``edgecount schema``: JSON Schemas for editors and for the other side of the wire."""

import json

import click


@click.command()
@click.argument("what", type=click.Choice(["config", "mqtt"]))
def command(what: str) -> None:
    """Print the JSON Schema of the configuration, or of every MQTT topic's payload."""
    if what == "config":
        from edgecount.toolchain.config_schema import config_schema

        schema = config_schema()
    else:
        from edgecount.publish.schema import topics

        schema = topics()
    click.echo(json.dumps(schema, indent=2))
