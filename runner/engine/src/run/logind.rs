//! What systemd's login manager does to programs at a logout, asked of its own tools, and starting a program where a
//! logout does not reach it.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Command;

use isokiln_core::session::{LoginManager, Logout};
use nix::unistd::{Uid, User};

/// What a logout would do to a program that is started now.
pub fn logout() -> Logout {
    let user = User::from_uid(Uid::effective()).ok().flatten().map(|user| user.name).unwrap_or_default();
    Logout::of(manager(&user).as_ref(), &user)
}

/// The login manager, if there is one.
fn manager(user: &str) -> Option<LoginManager> {
    let properties = printed(
        "busctl",
        &[
            "get-property",
            "org.freedesktop.login1",
            "/org/freedesktop/login1",
            "org.freedesktop.login1.Manager",
            "KillUserProcesses",
            "KillOnlyUsers",
            "KillExcludeUsers",
        ],
    )?;
    let lingers = || printed("loginctl", &["show-user", user, "--property=Linger", "--value"]);
    let has_user_manager = || {
        let folder = std::env::var_os("XDG_RUNTIME_DIR")?;
        Path::new(&folder).join("systemd/private").symlink_metadata().ok()
    };
    let manager = LoginManager::read(&properties)?;
    Some(LoginManager {
        lingers: lingers().is_some_and(|answer| answer.trim() == "yes"),
        has_user_manager: has_user_manager().is_some(),
        ..manager
    })
}

/// What a program prints; nothing where it is not there or fails.
fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A command for a program that is to outlive the session, as far as it can.
pub(super) fn outside(program: &OsStr, logout: Logout) -> Command {
    match logout {
        Logout::Escapes => {
            let mut command = Command::new("systemd-run");
            command.args(["--user", "--scope", "--quiet", "--collect", "--description=isokiln"]);
            command.arg("--").arg(program);
            command
        }
        Logout::Unmanaged | Logout::Spares | Logout::Kills => Command::new(program),
    }
}
