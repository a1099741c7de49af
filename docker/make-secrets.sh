#!/bin/sh
# Draws a password for the broker and one for Grafana, the first time the stack comes up.
set -eu
cd /secrets
draw() { head -c 18 /dev/urandom | base64 | tr '+/' '-_'; }
[ -s mqtt-password ] || draw > mqtt-password
[ -s grafana-password ] || draw > grafana-password
[ -s smtp-password ] || : > smtp-password
rm -f mosquitto-passwords
mosquitto_passwd -b -c mosquitto-passwords edgecount "$(cat mqtt-password)"
# edgecount runs as 990, mosquitto as 1883, grafana as 472, alertmanager as 65534.
chown 990 mqtt-password && chown 472 grafana-password && chown 65534 smtp-password
chown 1883 mosquitto-passwords
chmod 0400 mqtt-password grafana-password smtp-password mosquitto-passwords
