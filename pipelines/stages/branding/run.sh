folder=$INPUTS/folder
brand=$ROOTFS/usr/share/isokiln/brand
mkdir -p "$brand"

# Checks the manifest and its pictures; leaves brand.json and the pictures under their own names.
complaint=$(python3 - "$folder" "$brand" <<'PYTHON'
import json, pathlib, re, shutil, struct, sys, tomllib

folder, target = map(pathlib.Path, sys.argv[1:])
SIZES = {"isolinux": (640, 480), "grub": (1920, 1080), "wallpaper": None, "mark": (256, 256), "logo": (640, 200)}
COLOURS = ["background", "panel", "text", "highlight", "highlight-text"]


def wrong(cause, cure):
    print(cause, cure, sep="\t")
    sys.exit()


def size(path, name):
    try:
        head = path.open("rb").read(26)
    except OSError:
        wrong(f"there is no picture {path.name}, which brand.toml names as {name}", "add it to the folder, or correct images")
    if head[:8] != b"\x89PNG\r\n\x1a\n" or head[12:16] != b"IHDR":
        wrong(f"{path.name} is no PNG", "save it as PNG; another ending of its name is not enough")
    width, height, depth, colour = struct.unpack(">IIBB", head[16:])
    if depth != 8 or colour not in (2, 6):
        wrong(f"{path.name} has {depth} bits a channel or a palette", "save it as PNG with 8 bits of red, green and blue")
    return width, height


try:
    brand = tomllib.loads((folder / "brand.toml").read_text())
except OSError:
    wrong("the folder holds no brand.toml", "isokiln kinds branding shows what belongs into it")
except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
    wrong(f"brand.toml: {error}", "correct it there")
known = {"id", "name", "version", "tagline", "home", "colours", "images"}
for key in brand.keys() - known:
    wrong(f"brand.toml: there is no \"{key}\"", "it knows " + ", ".join(sorted(known)))
for key in ("id", "name", "version", "tagline", "home"):
    text = brand.get(key, "" if key in ("tagline", "home") else None)
    if not isinstance(text, str) or not text and key in ("id", "name", "version"):
        wrong(f"brand.toml: {key} is needed", f"write {key} = \"…\"")
    if re.search(r"[\x00-\x1f\"'\\$`]", text):
        wrong(f"brand.toml: {key} holds quotes, '\\', '$' or control characters", "it goes into files of many formats; leave them out")
if not re.fullmatch(r"[a-z][a-z0-9._-]{0,31}", brand["id"]):
    wrong(f"brand.toml: id \"{brand['id']}\" is not valid", "use lower-case letters, digits, '.', '_' and '-'")
for group, wanted in (("colours", COLOURS), ("images", SIZES)):
    given = brand.get(group, {})
    for key in given.keys() - set(wanted):
        wrong(f"brand.toml: [{group}] has no \"{key}\"", "it knows " + ", ".join(wanted))
    for key in wanted:
        if not isinstance(given.get(key), str):
            wrong(f"brand.toml: [{group}] lacks {key}", "every one is needed: " + ", ".join(wanted))
for key, colour in brand["colours"].items():
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", colour):
        wrong(f"brand.toml: colour {key} = \"{colour}\" is not valid", "write it as \"#0e1638\"")
for name, wanted in SIZES.items():
    path = folder / brand["images"][name]
    width, height = size(path, name)
    if wanted and (width, height) != wanted:
        wrong(f"{path.name} is {width} x {height}, but {name} must be {wanted[0]} x {wanted[1]}", "draw it in that size")
    if not wanted and (width < 1920 or height < 1080):
        wrong(f"{path.name} is {width} x {height}, but {name} must be at least 1920 x 1080", "draw it larger")
    shutil.copy(path, target / f"{name}.png")
del brand["images"]
(target / "brand.json").write_text(json.dumps(brand, indent=2, ensure_ascii=False) + "\n")
PYTHON
)
[[ ! $complaint ]] || fail "${complaint%%$'\t'*}" "${complaint##*$'\t'}"
said() { jq -r "$1 // \"\"" "$brand/brand.json"; }
id=$(said .id) name=$(said .name) version=$(said .version)
find "$brand" -type f -exec chmod 644 {} +

# The distribution's own file stays where updates of its package find it.
in_rootfs dpkg-divert --local --rename --divert /usr/lib/os-release.distribution --add /usr/lib/os-release
like=$(. "$ROOTFS/usr/lib/os-release.distribution" && echo "${ID}${ID_LIKE:+ $ID_LIKE}")
codename=$(. "$ROOTFS/usr/lib/os-release.distribution" && echo "${VERSION_CODENAME:-}")
{
    printf 'PRETTY_NAME="%s %s"\nNAME="%s"\nVERSION="%s"\nVERSION_ID="%s"\n' "$name" "$version" "$name" "$version" "$version"
    printf 'ID=%s\nID_LIKE="%s"\n' "$id" "$like"
    [[ ! $codename ]] || printf 'VERSION_CODENAME=%s\n' "$codename"
    [[ ! $(said .home) ]] || printf 'HOME_URL="%s"\n' "$(said .home)"
} >"$ROOTFS/usr/lib/os-release"
ln -sfn ../usr/lib/os-release "$ROOTFS/etc/os-release"
printf '%s %s \\n \\l\n\n' "$name" "$version" >"$ROOTFS/etc/issue"

mkdir -p "$ROOTFS/usr/share/pixmaps" "$ROOTFS/usr/share/backgrounds"
cp "$brand/mark.png" "$ROOTFS/usr/share/pixmaps/$id.png"
cp "$brand/wallpaper.png" "$ROOTFS/usr/share/backgrounds/$id.png"
wallpaper=/usr/share/backgrounds/$id.png

# Desktops and greeters that are there.
if [[ -d $ROOTFS/etc/xdg/pcmanfm-qt || -x $ROOTFS/usr/bin/pcmanfm-qt ]]; then
    mkdir -p "$ROOTFS/etc/xdg/pcmanfm-qt/lxqt"
    printf '[Desktop]\nWallpaper=%s\nWallpaperMode=zoom\nBgColor=%s\nFgColor=%s\nShadowColor=#000000\n' \
        "$wallpaper" "$(said .colours.background)" "$(said .colours.text)" >"$ROOTFS/etc/xdg/pcmanfm-qt/lxqt/settings.conf"
fi
if [[ -e $ROOTFS/usr/share/lxqt/lxqt.conf ]]; then
    shade=$(perl -e '$_ = shift; my ($r, $g, $b) = map { hex } /#(..)(..)(..)/; print 2 * $r + 5 * $g + $b < 1024 ? "dark" : "light"' \
        "$(said .colours.panel)")
    mkdir -p "$ROOTFS/etc/xdg/lxqt"
    sed "s/^theme=.*/theme=$shade/" "$ROOTFS/usr/share/lxqt/lxqt.conf" >"$ROOTFS/etc/xdg/lxqt/lxqt.conf"
fi
if [[ -x $ROOTFS/usr/bin/xfdesktop ]]; then
    mkdir -p "$ROOTFS/usr/share/images/desktop-base"
    ln -sfn "$wallpaper" "$ROOTFS/usr/share/images/desktop-base/default"
fi
if [[ -d $ROOTFS/usr/share/sddm/themes/maldives ]]; then
    mkdir -p "$ROOTFS/etc/sddm.conf.d"
    printf '[Theme]\nCurrent=maldives\n' >"$ROOTFS/etc/sddm.conf.d/brand.conf"
    printf '[General]\nbackground=%s\n' "$wallpaper" >"$ROOTFS/usr/share/sddm/themes/maldives/theme.conf.user"
fi
if [[ -d $ROOTFS/etc/lightdm ]]; then
    printf '[greeter]\nbackground=%s\n' "$wallpaper" >"$ROOTFS/etc/lightdm/lightdm-gtk-greeter.conf"
fi

if enabled start-up; then
    before=/isokiln/packages-before.tsv
    record_packages "$before"
    apt_update
    apt_install plymouth plymouth-label
    record_packages /isokiln/packages-after.tsv
    comm -13 "$before" /isokiln/packages-after.tsv >"$ARTIFACTS/$STAGE.packages.tsv"
    theme=$ROOTFS/usr/share/plymouth/themes/$id
    mkdir -p "$theme"
    cp "$brand/mark.png" "$theme/"
    printf '[Plymouth Theme]\nName=%s\nDescription=%s\nModuleName=script\n\n[script]\nImageDir=/usr/share/plymouth/themes/%s\nScriptFile=/usr/share/plymouth/themes/%s/%s.script\n' \
        "$name" "$name" "$id" "$id" "$id" >"$theme/$id.plymouth"
    # "#rrggbb" as three numbers from 0 to 1.
    shade() { perl -e '$_ = shift; printf "%.3f, %.3f, %.3f", map { hex($_) / 255 } /#(..)(..)(..)/' "$(said "$1")"; }
    cat >"$theme/$id.script" <<SCRIPT
Window.SetBackgroundTopColor($(shade .colours.background));
Window.SetBackgroundBottomColor($(shade .colours.panel));
mark = Sprite(Image("mark.png"));
mark.SetX(Window.GetX() + Window.GetWidth() / 2 - mark.GetImage().GetWidth() / 2);
mark.SetY(Window.GetY() + Window.GetHeight() / 2 - mark.GetImage().GetHeight() / 2);
# It breathes while the system starts.
step = 0;
fun refresh() {
    step++;
    mark.SetOpacity(0.75 + 0.25 * Math.Cos(step / 20));
}
Plymouth.SetRefreshFunction(refresh);
message = Sprite();
fun show(text) {
    message.SetImage(Image.Text(text, $(shade .colours.text)));
    message.SetX(Window.GetX() + Window.GetWidth() / 2 - message.GetImage().GetWidth() / 2);
    message.SetY(Window.GetY() + Window.GetHeight() * 0.8);
}
Plymouth.SetMessageFunction(show);
fun ask(prompt, bullets) {
    dots = "";
    for (index = 0; index < bullets; index++) dots += "*";
    show(prompt + "  " + dots);
}
Plymouth.SetDisplayPasswordFunction(ask);
fun ask_nothing() { message.SetImage(Image.Text("", 1, 1, 1)); }
Plymouth.SetDisplayNormalFunction(ask_nothing);
SCRIPT
    in_rootfs plymouth-set-default-theme "$id" || fail "Plymouth does not take the theme" "the stage's log has the whole story"
    in_rootfs update-initramfs -u -k all
fi
note "the system is $name $version now"
