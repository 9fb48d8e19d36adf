#!/usr/bin/env bash
# Draws the brand anew: svg/ by draw.py, and from it the PNG files that brand.toml names. Needs python3 and
# rsvg-convert (on Debian: apt install librsvg2-bin).
set -euo pipefail
cd "$(dirname "$0")"
mkdir -p svg
python3 draw.py
for name in isolinux grub wallpaper mark logo; do
    rsvg-convert "svg/$name.svg" --output "$name.png"
done
