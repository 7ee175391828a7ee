# Sourced by the scripts that make tables.

# metric FOLDER SECTION KEY: one value of FOLDER/metrics.json, the first KEY at or after the line with SECTION.
metric() {
  awk -v section="\"$2\"" -v key="\"$3\":" \
    '$0 ~ section {on = 1} on && index($0, key) {gsub(/[ ,]/, ""); sub(/^[^:]*:/, ""); print; exit}' "$1/metrics.json"
}
