//! The squashfs of an ISO, which is put together from those of the layers.

use std::process::Command;

use isokiln_tests::{Guard, Running, builder_image, repository};

/// Layers at random, for each compressor, merged and compared with what overlayfs makes of them.
#[test]
fn merged_layers_are_what_overlayfs_shows() {
    let cases = "
        1 -comp zstd -Xcompression-level 3
        2 -comp zstd -Xcompression-level 3
        3 -comp zstd -Xcompression-level 3 -b 4096
        4 -comp zstd -Xcompression-level 3 -no-fragments
        5 -comp zstd -Xcompression-level 3
        6 -comp gzip -Xcompression-level 9
        7 -comp xz -Xbcj x86
        8 -comp lz4 -Xhc";
    let root = repository();
    let mut command = Command::new("docker");
    command.args(["run", "--rm", "--log-driver=none"]);
    // A volume to work in, because overlayfs takes no other overlay's folder for its upper one.
    command.args(["--volume=/layers", "--cap-add=SYS_ADMIN", "--cap-add=MKNOD"]);
    command.args(["--security-opt=seccomp=unconfined", "--security-opt=apparmor=unconfined"]);
    command.arg(format!("--volume={}:/iso:ro", root.join("pipelines/stages/iso").display()));
    command.arg(format!("--volume={}:/test:ro", root.join("tests/fixtures/squash").display()));
    command.args([builder_image(), "bash", "-euc"]);
    command.arg(format!(
        "while read -r case; do [[ ! $case ]] || python3 /test/merged.py /iso/merge.py /layers $case; done <<<'{cases}'"
    ));
    let guard = Guard::new();
    let ended = Running::start(guard.mark(&mut command)).wait();
    assert_eq!(ended.code, Some(0), "{ended}");
    let compared = ended.stdout.lines().filter(|line| line.contains("0 differ, 0 hard links torn")).count();
    assert_eq!(compared, 8, "{ended}");
}
