//! Making the ISOs of the corpus.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::{Case, Source, Table};
use crate::footprint::Guard;
use crate::isokiln::{Finished, Running, binary, builder_image, repository};

/// The longest that making an ISO may take: Debian's live-build takes about ten minutes on a slow machine.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(60 * 60);

/// Makes ISOs in a folder, each once.
#[derive(Debug)]
pub struct Workshop<'t> {
    table: &'t Table,
    folder: PathBuf,
    /// Finds what its programs leave.
    guard: Guard,
}

impl<'t> Workshop<'t> {
    /// Makes the folder if need be.
    pub fn open(table: &'t Table, folder: &Path) -> std::io::Result<Self> {
        fs::create_dir_all(folder)?;
        Ok(Self { table, folder: folder.canonicalize()?, guard: Guard::new() })
    }

    /// isokiln's own folder: bases are built and runs recorded there.
    pub fn isokiln_folder(&self) -> PathBuf {
        self.folder.join("isokiln")
    }

    /// The case's ISO, made now unless it is there and its recipe, or that of its bases, is still the same.
    pub fn iso(&self, case: &Case) -> Result<PathBuf, String> {
        let iso = self.folder.join(format!("{}.iso", case.name));
        let stamp = self.folder.join(format!("{}.made", case.name));
        let recipe = self.recipe(case)?;
        if iso.exists() && fs::read_to_string(&stamp).is_ok_and(|made| made == recipe) {
            return Ok(iso);
        }
        if let Some(base) = self.base_of(case)? {
            self.iso(base)?;
        }
        // An ISO without its recipe beside it is not trusted, so that a killed run leaves nothing half made.
        drop(fs::remove_file(&stamp));
        match &case.source {
            Source::Pipeline(pipeline) => self.build(pipeline, &iso)?,
            Source::Recipe { base, recipe, rights } => {
                self.cook(&case.name, base.as_deref(), recipe, *rights)?;
            }
        }
        fs::write(&stamp, recipe).map_err(|error| format!("{}: {error}", stamp.display()))?;
        Ok(iso)
    }

    /// isokiln, in a place where whatever it leaves is found when the workshop closes.
    pub fn isokiln(&self) -> Command {
        let mut command = Command::new(binary());
        self.guard.mark(&mut command);
        command
    }

    /// Takes away what isokiln keeps in the engine for this folder; ISOs and store stay.
    pub fn tidy(&self) -> Result<(), String> {
        let mut command = self.isokiln();
        succeed(command.arg("clean").arg("--dir").arg(self.isokiln_folder())).map(drop)
    }

    fn base_of(&self, case: &Case) -> Result<Option<&'t Case>, String> {
        let Source::Recipe { base: Some(base), .. } = &case.source else { return Ok(None) };
        self.table.case(base).map(Some).ok_or_else(|| format!("there is no case {base}"))
    }

    /// Everything that an ISO is made from, as text.
    fn recipe(&self, case: &Case) -> Result<String, String> {
        let own = match &case.source {
            Source::Pipeline(pipeline) => fs::read_to_string(repository().join(pipeline))
                .map_err(|error| format!("{pipeline}: {error}"))?,
            Source::Recipe { recipe, .. } => recipe.clone(),
        };
        match self.base_of(case)? {
            Some(base) => Ok(format!("{}\n--\n{own}", self.recipe(base)?)),
            None => Ok(own),
        }
    }

    /// Lets isokiln build a pipeline that leaves the ISO.
    fn build(&self, pipeline: &str, iso: &Path) -> Result<(), String> {
        let mut command = self.isokiln();
        command.args(["build", pipeline, "--no-test", "--format=json", "--dir"]).arg(self.isokiln_folder());
        let built = succeed(command.current_dir(repository()))?;
        let made = built.events().into_iter().filter(|event| event["event"] == "artifact");
        let mut made = made.filter_map(|event| event["path"].as_str().map(PathBuf::from));
        let made = made.rfind(|path| path.file_name() == iso.file_name());
        let made = made.ok_or_else(|| format!("{pipeline} leaves no {}", iso.display()))?;
        drop(fs::remove_file(iso));
        fs::hard_link(&made, iso)
            .or_else(|_| fs::copy(&made, iso).map(drop))
            .map_err(|error| format!("{}: {error}", iso.display()))
    }

    /// Runs a recipe in the builder image.
    fn cook(&self, name: &str, base: Option<&str>, recipe: &str, rights: bool) -> Result<(), String> {
        let mut command = Command::new("docker");
        command.args(["run", "--rm", "--log-driver=none", "--volume"]);
        command.arg(format!("{}:/corpus", self.folder.display()));
        command.arg("--volume").arg(format!("{}:/recipes:ro", Table::folder().display()));
        if rights {
            // A volume to work in, because a mount of the container's own file system on itself is refused.
            command.args(["--volume=/tmp", "--cap-add=SYS_ADMIN", "--cap-add=MKNOD"]);
            command.args(["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]);
        }
        command.args([builder_image(), "bash", "/recipes/recipe.sh", name, base.unwrap_or_default(), recipe]);
        succeed(&mut command).map(drop)
    }
}

fn succeed(command: &mut Command) -> Result<Finished, String> {
    let ended = Running::start(command).wait_at_most(LIMIT);
    if ended.code == Some(0) { Ok(ended) } else { Err(ended.to_string()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_twin_is_made_again_with_its_base() {
        let text = |made: &str| {
            format!(
                "[[case]]\nname = \"a\"\nmade = \"{made}\"\n[[case]]\nname = \"b\"\nbase = \"a\"\nmade = \"two\"\n"
            )
        };
        let folder = tempfile::tempdir().expect("a folder");
        let recipe = |made: &str| {
            let table = Table::parse(&text(made)).expect("a table");
            let workshop = Workshop::open(&table, folder.path()).expect("a folder");
            workshop.recipe(&table.cases[1]).expect("a recipe")
        };
        assert_eq!(recipe("one"), "one\n--\ntwo");
        assert_ne!(recipe("one"), recipe("another"));
    }

    #[test]
    fn what_is_there_is_not_made_again() {
        let table = Table::parse("[[case]]\nname = \"a\"\nmade = \"exit 1\"\n").expect("a table");
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(folder.path().join("a.iso"), "an ISO").expect("writable");
        fs::write(folder.path().join("a.made"), "exit 1").expect("writable");
        let workshop = Workshop::open(&table, folder.path()).expect("a folder");
        assert!(workshop.iso(&table.cases[0]).expect("an ISO").ends_with("a.iso"));
    }
}
