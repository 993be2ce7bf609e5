#!/bin/sh
# Copy the versions that a models.config names from a bucket to a folder, each once, and look again every few seconds:
#   mirror.sh bucket:PATH/flowers /models/flowers /config/models.config 10
# A version is complete when it has its saved_model.pb, which is pushed last. Only then it gets its number: TensorFlow
# Serving ignores a folder whose name is no number.
set -u
source=$1 target=$2 config=$3 poll_s=$4

fetch() {
  rclone copy --contimeout 10s --timeout 60s --retries 1 --low-level-retries 2 "$source/$1" "$target/.$1.partial" &&
    [ -f "$target/.$1.partial/saved_model.pb" ] &&
    mv "$target/.$1.partial" "$target/$1"
}

mkdir -p "$target" || exit
while :; do
  for version in $(sed -n 's/^ *versions: *\([0-9][0-9]*\).*/\1/p' "$config"); do
    [ -d "$target/$version" ] && continue
    if fetch "$version"; then
      echo "Version $version is here."
    else
      echo "$source must hold version $version with its saved_model.pb, and does not yet. Trying again." >&2
    fi
  done
  sleep "$poll_s"
done
