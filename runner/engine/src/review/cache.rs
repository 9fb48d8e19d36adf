//! Answers that were given before.

use std::fs;
use std::io::Write;
use std::path::PathBuf;

use isokiln_core::digest::Digest;
use isokiln_core::review::Prompt;
use isokiln_core::review::wire::{Endpoint, Reply};

/// Answers on disk, each under the digest of what was asked and of whom.
#[derive(Debug, Clone)]
pub struct Cache {
    folder: PathBuf,
}

/// What a question is known by. The prompt is the one with a marker that is the same each time.
pub(super) fn key(endpoint: &Endpoint, prompt: &Prompt) -> Digest {
    let parts = [endpoint.protocol.name(), &endpoint.url, &endpoint.model, &prompt.system, &prompt.user];
    let lengths: Vec<String> = parts.iter().map(|part| format!("{}\n{part}", part.len())).collect();
    Digest::of(lengths.concat())
}

impl Cache {
    /// Answers in that folder, which is made when the first one comes.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    /// The answer to a question, if there is one that reads.
    pub(super) fn get(&self, key: &Digest) -> Option<Reply> {
        let text = fs::read(self.file(key)).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// Keeps an answer. That this fails only means that it is asked for again.
    pub(super) fn put(&self, key: &Digest, reply: &Reply) {
        let write = || -> std::io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = tempfile::NamedTempFile::new_in(&self.folder)?;
            file.write_all(&serde_json::to_vec(reply)?)?;
            file.persist(self.file(key))?;
            Ok(())
        };
        if let Err(error) = write() {
            tracing::debug!(%error, "an agent's answer is not kept");
        }
    }

    fn file(&self, key: &Digest) -> PathBuf {
        self.folder.join(format!("{}.json", key.hex()))
    }
}

#[cfg(test)]
mod tests {
    use isokiln_core::review::wire::Protocol;

    use super::*;

    fn asked(model: &str, system: &str, user: &str) -> Digest {
        let endpoint =
            Endpoint { protocol: Protocol::OpenAi, url: "http://x".into(), model: model.into(), key: None };
        key(&endpoint, &Prompt { system: system.into(), user: user.into() })
    }

    #[test]
    fn an_answer_is_found_again_by_what_was_asked() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path().join("replies"));
        let reply = Reply { text: "{}".into(), tokens_in: 3, tokens_out: 4 };
        let asked_for = asked("m", "s", "u");
        assert_eq!(cache.get(&asked_for), None);
        cache.put(&asked_for, &reply);
        assert_eq!(cache.get(&asked_for), Some(reply));
        assert_eq!(cache.get(&asked("n", "s", "u")), None);
        assert_ne!(asked("m", "sa", "u"), asked("m", "s", "au"));
    }

    #[test]
    fn broken_answers_are_none_and_a_full_disk_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::new(folder.path());
        let asked_for = asked("m", "s", "u");
        fs::write(cache.file(&asked_for), "{\"text\":").unwrap();
        assert_eq!(cache.get(&asked_for), None);
        fs::write(folder.path().join("file"), "").unwrap();
        Cache::new(folder.path().join("file/x"))
            .put(&asked_for, &Reply { text: String::new(), tokens_in: 0, tokens_out: 0 });
    }
}
