//! Kernel modules by `modules.dep` and `modules.builtin` (kmod).

use std::collections::{BTreeSet, HashMap, HashSet};

use serde::Serialize;

/// What every WLAN driver of today stands on.
const WLAN_STACK: [&str; 2] = ["cfg80211", "mac80211"];
/// Folders of WLAN drivers in staging that bring a stack of their own.
const STAGING: [&str; 4] = ["staging/rtl8192e/", "staging/rtl8712/", "staging/rtl8723bs/", "staging/ks7010/"];
/// Simulates radios.
const SIMULATOR: &str = "mac80211_hwsim";

/// Modules of one kernel, as far as boot tests care.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Modules {
    /// Version of the kernel, as `uname -r` says it.
    pub release: String,
    /// All modules that can be loaded.
    pub count: usize,
    /// WLAN drivers that can be loaded, by name: what depends on cfg80211 or mac80211, and staging drivers.
    pub wlan: Vec<String>,
    /// `mac80211_hwsim` is there.
    pub wlan_simulator: bool,
    /// `virtio_console` is there, as a module or built in.
    pub virtio_console: bool,
}

/// Reads the texts of both files.
pub(super) fn find(release: &str, dependencies: &str, built_in: &str) -> Modules {
    let lines: Vec<(&str, &str)> = dependencies.lines().filter_map(|line| line.split_once(':')).collect();
    let needs: HashMap<String, Vec<String>> =
        lines.iter().map(|(path, list)| (name(path), list.split_whitespace().map(name).collect())).collect();
    let mut wlan: BTreeSet<String> = BTreeSet::new();
    for (path, _) in &lines {
        let module = name(path);
        // What lies in `net` are protocols, the WLAN stack itself among them.
        let other = path.starts_with("kernel/net/") || module == SIMULATOR;
        if !other && (reaches_wlan(&module, &needs) || STAGING.iter().any(|folder| path.contains(folder))) {
            wlan.insert(module);
        }
    }
    let fixed: HashSet<String> = built_in.lines().map(name).collect();
    let has = |module: &str| needs.contains_key(module) || fixed.contains(module);
    Modules {
        release: release.to_owned(),
        count: lines.len(),
        wlan: wlan.into_iter().collect(),
        wlan_simulator: has(SIMULATOR),
        virtio_console: has("virtio_console"),
    }
}

/// Whether a module depends on the WLAN stack. depmod lists all dependencies, but others need not.
fn reaches_wlan(module: &str, needs: &HashMap<String, Vec<String>>) -> bool {
    let mut seen = HashSet::new();
    let mut left = vec![module];
    while let Some(module) = left.pop() {
        for need in needs.get(module).into_iter().flatten() {
            if WLAN_STACK.contains(&need.as_str()) {
                return true;
            }
            if seen.insert(need.as_str()) {
                left.push(need);
            }
        }
    }
    false
}

/// A module's name by the path of its file: the kernel takes `-` for `_`.
fn name(path: &str) -> String {
    let file = path.trim().rsplit('/').next().unwrap_or_default();
    file.split(".ko").next().unwrap_or_default().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEP: &str = "\
kernel/net/wireless/cfg80211.ko.xz: kernel/net/rfkill/rfkill.ko.xz
kernel/net/mac80211/mac80211.ko.xz: kernel/net/wireless/cfg80211.ko.xz kernel/net/rfkill/rfkill.ko.xz
kernel/net/rfkill/rfkill.ko.xz:
kernel/net/batman-adv/batman-adv.ko.xz: kernel/net/wireless/cfg80211.ko.xz
kernel/drivers/net/wireless/intel/iwlwifi/mvm/iwlmvm.ko.xz: kernel/net/mac80211/mac80211.ko.xz
kernel/drivers/net/wireless/virtual/mac80211_hwsim.ko.xz: kernel/net/mac80211/mac80211.ko.xz
kernel/drivers/net/wireless/child.ko: kernel/drivers/net/wireless/intel/iwlwifi/mvm/iwlmvm.ko.xz
kernel/drivers/staging/rtl8712/r8712u.ko.xz: kernel/drivers/usb/usbcore.ko.xz
updates/dkms/wl.ko: kernel/net/wireless/cfg80211.ko.xz
kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz: kernel/a.ko
kernel/a.ko: kernel/drivers/net/ethernet/intel/e1000e/e1000e.ko.xz
kernel/drivers/char/virtio-console.ko.zst:
";

    #[test]
    fn wlan_modules_are_those_that_stand_on_its_stack() {
        let modules = find("6.12.0", DEP, "kernel/fs/ext4/ext4.ko\n");
        assert_eq!(modules.wlan, ["child", "iwlmvm", "r8712u", "wl"]);
        assert_eq!((modules.count, modules.wlan_simulator, modules.virtio_console), (12, true, true));
    }

    #[test]
    fn a_built_in_driver_is_there_too() {
        let modules = find("6.12.0", "", "kernel/drivers/char/virtio_console.ko\n");
        assert_eq!((modules.count, modules.wlan_simulator, modules.virtio_console), (0, false, true));
        assert_eq!(find("x", "garbage\n:::\n\u{0}", "").wlan, Vec::<String>::new());
    }
}
