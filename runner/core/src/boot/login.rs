//! Getting from a console to root's shell, and from there to the probe: what to type at which prompt.

use super::probe::hello_command;

/// Users and passwords of live systems, one pair a line.
pub(super) const LOGINS: &str = include_str!("../../../../qemu/probe/logins.tsv");

/// A conversation with a console.
#[derive(Debug, Default)]
pub struct Login {
    /// The pairs that were tried.
    tried: usize,
    /// Whether the probe was started.
    started: bool,
}

impl Login {
    /// Whether the line that starts the probe was given to a shell.
    pub fn is_done(&self) -> bool {
        self.started
    }

    /// What to type when the cursor stands behind this line; `None` where nothing is asked, or nothing more is
    /// known to try.
    pub fn answer(&mut self, line: &str) -> Option<String> {
        let line = line.trim();
        if self.started {
            return None;
        }
        if line.ends_with("login:") {
            self.tried += 1;
            return pair(self.tried - 1).map(|(user, _)| format!("{user}\n"));
        }
        if line.ends_with("assword:") {
            return pair(self.tried.checked_sub(1)?).map(|(_, password)| format!("{password}\n"));
        }
        let mut end = line.chars().rev();
        let (last, before) = (end.next()?, end.next());
        // "45%" and "#####" show how far something has come, but "host2%" is a prompt.
        let word = line.rsplit(' ').next().unwrap_or(line);
        let percent = word.strip_suffix('%').is_some_and(|number| number.parse::<f64>().is_ok());
        if before == Some(last) || percent {
            return None;
        }
        let answer = match last {
            '#' => format!("{}\n", hello_command()),
            '$' | '%' => format!("sudo sh -c '{}'\n", hello_command()),
            _ => return None,
        };
        self.started = true;
        Some(answer)
    }
}

fn pair(index: usize) -> Option<(&'static str, &'static str)> {
    let pairs = LOGINS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    pairs.map(|line| line.split_once('\t').unwrap_or((line, ""))).nth(index)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn logs_in_and_starts_the_probe_once() {
        let mut login = Login::default();
        assert_eq!(login.answer("Debian GNU/Linux 12 debian ttyS1"), None);
        let (user, password) = pair(0).unwrap();
        assert_eq!(login.answer("debian login: "), Some(format!("{user}\n")));
        assert_eq!(login.answer("Password: "), Some(format!("{password}\n")));
        assert_eq!(login.answer("Login incorrect"), None);
        let (second, _) = pair(1).unwrap();
        assert_eq!(login.answer("debian login:"), Some(format!("{second}\n")));
        let typed = login.answer("user@debian:~$ ").unwrap();
        assert!(typed.starts_with("sudo sh -c '") && typed.ends_with("'\n"), "{typed}");
        assert!(login.is_done());
        assert_eq!(login.answer("user@debian:~$ "), None);
    }

    #[test]
    fn roots_shell_needs_no_sudo_and_guessing_ends() {
        let typed = Login::default().answer("root@debian:/# ").unwrap();
        assert_eq!(typed.trim_end(), hello_command());
        for progress in ["Loading ####", "[ 45%", "100%"] {
            assert_eq!(Login::default().answer(progress), None, "{progress}");
        }
        for prompt in ["debian%", "grml64%"] {
            assert!(Login::default().answer(prompt).unwrap().starts_with("sudo"), "{prompt}");
        }
        let mut login = Login::default();
        let tries = (0..100).take_while(|_| login.answer("x login:").is_some()).count();
        assert!((1..20).contains(&tries), "{tries}");
        assert!(!login.is_done());
    }
}
