"""``edgecount eval …``: measure detection, tracking and counting against ground truth."""

from edgecount.cli.main import FileGroup

command = FileGroup(
    package=__name__,
    name="eval",
    help="Measure detection, tracking and counting against ground truth.",
)
