//! What a logout does to programs that were started before it, where systemd manages logins (logind.conf(5),
//! loginctl(1), systemd-run(1)).

/// What is known of the login manager.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoginManager {
    /// Whether a logout ends the session's programs: `KillUserProcesses`.
    pub kills: bool,
    /// If not empty, only these users' programs: `KillOnlyUsers`.
    pub only: Vec<String>,
    /// Never these users' programs: `KillExcludeUsers`.
    pub exclude: Vec<String>,
    /// Whether the user's own service manager outlives the last logout: lingering.
    pub lingers: bool,
    /// Whether that manager can be asked to run something outside of the session.
    pub has_user_manager: bool,
}

impl LoginManager {
    /// Reads what `busctl get-property` prints of `KillUserProcesses`, `KillOnlyUsers` and `KillExcludeUsers`, a line
    /// each: `b true`, `as 0`, `as 1 "root"`. `None` where it is something else.
    pub fn read(properties: &str) -> Option<Self> {
        let mut lines = properties.lines();
        let kills = match lines.next()?.trim() {
            "b true" => true,
            "b false" => false,
            _ => return None,
        };
        let mut users = || {
            let words = lines.next()?.trim().strip_prefix("as ")?.split(' ').skip(1);
            Some(words.map(|word| word.trim_matches('"').to_owned()).collect())
        };
        Some(Self { kills, only: users()?, exclude: users()?, ..Self::default() })
    }
}

/// What a logout does to a supervisor, and what is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Logout {
    /// Nothing manages logins here.
    Unmanaged,
    /// The manager leaves programs alone.
    Spares,
    /// The manager would end it; in a scope of the user's own manager, which lingers, it lives on.
    Escapes,
    /// The manager ends it.
    Kills,
}

impl Logout {
    /// What becomes of programs of this user; `manager` is absent where nothing manages logins.
    pub fn of(manager: Option<&LoginManager>, user: &str) -> Self {
        let Some(manager) = manager else { return Self::Unmanaged };
        let has = |list: &[String]| list.iter().any(|name| name == user);
        let is_meant = !has(&manager.exclude) && (manager.only.is_empty() || has(&manager.only));
        if !(manager.kills && is_meant) {
            // A scope of the user's manager would end with that manager, at the last logout.
            Self::Spares
        } else if manager.lingers && manager.has_user_manager {
            Self::Escapes
        } else {
            Self::Kills
        }
    }

    /// What to tell a person, in one line.
    pub fn words(self) -> &'static str {
        match self {
            Self::Unmanaged => "no systemd manages logins here: a logout ends no build",
            Self::Spares => "systemd leaves programs alone at a logout (KillUserProcesses): builds go on",
            Self::Escapes => {
                "systemd ends programs at a logout (KillUserProcesses); builds run in a scope of your lingering user manager and go on"
            }
            Self::Kills => "systemd ends programs at a logout (KillUserProcesses), builds too",
        }
    }

    /// What to do about it, where something can be done.
    pub fn cure(self) -> Option<&'static str> {
        (self == Self::Kills).then_some("loginctl enable-linger lets builds go on")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_login_managers_properties_are_read() {
        let read = LoginManager::read("b true\nas 2 \"ann\" \"bob\"\nas 1 \"root\"\n").unwrap();
        assert_eq!(
            (read.kills, read.only, read.exclude),
            (true, vec!["ann".to_owned(), "bob".to_owned()], vec!["root".to_owned()])
        );
        let read = LoginManager::read("b false\nas 0\nas 0\n").unwrap();
        assert_eq!((read.kills, read.only.len(), read.exclude.len()), (false, 0, 0));
        for other in ["", "b maybe\nas 0\nas 0\n", "b true\n", "Failed to connect to bus"] {
            assert_eq!(LoginManager::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_build_escapes_only_where_it_must_and_can() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let kills = LoginManager { kills: true, has_user_manager: true, ..LoginManager::default() };
        let lingers = LoginManager { lingers: true, ..kills.clone() };
        for (expected, manager) in [
            (Logout::Unmanaged, None),
            (Logout::Spares, Some(LoginManager::default())),
            (Logout::Spares, Some(LoginManager { kills: false, ..lingers.clone() })),
            (Logout::Kills, Some(kills.clone())),
            (Logout::Escapes, Some(lingers.clone())),
            (Logout::Kills, Some(LoginManager { has_user_manager: false, ..lingers })),
            (Logout::Spares, Some(LoginManager { exclude: names(&["root", "ann"]), ..kills.clone() })),
            (Logout::Spares, Some(LoginManager { only: names(&["bob"]), ..kills.clone() })),
            (Logout::Kills, Some(LoginManager { only: names(&["ann"]), ..kills })),
        ] {
            assert_eq!(Logout::of(manager.as_ref(), "ann"), expected, "{manager:?}");
        }
    }
}
