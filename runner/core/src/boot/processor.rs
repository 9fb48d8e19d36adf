//! What a processor is doing, as the monitor's `info registers` tells it.

/// A processor at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Processor {
    /// Address of the next instruction: RIP, or EIP as it stands (without its segment).
    pub counter: u64,
    /// Privilege: 0 for firmware, boot loaders and kernels, 3 for programs.
    pub privilege: u8,
    /// Whether it waits for an interrupt.
    pub halted: bool,
}

/// Where the code of Linux lies on x86-64 (Documentation/arch/x86/x86_64/mm.rst: kernel text, and modules).
const LINUX: std::ops::RangeInclusive<u64> = 0xffff_ffff_8000_0000..=0xffff_ffff_ff00_0000;

impl Processor {
    /// Whether it runs the kernel of Linux. Firmware and boot loaders live at low addresses.
    pub fn in_linux(self) -> bool {
        self.privilege == 0 && LINUX.contains(&self.counter)
    }

    /// Whether it runs a program of a running system.
    pub fn in_program(self) -> bool {
        self.privilege == 3
    }

    /// Reads what `info registers -a` prints.
    pub fn parse(text: &str) -> Vec<Self> {
        text.lines().filter_map(Self::parse_line).collect()
    }

    /// The line that has the program counter also says the rest, for example
    /// `RIP=ffffffff81000000 RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1`.
    fn parse_line(line: &str) -> Option<Self> {
        let field =
            |name: &str| line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let counter = u64::from_str_radix(field("RIP").or_else(|| field("EIP"))?, 16).ok()?;
        Some(Self { counter, privilege: field("CPL")?.parse().ok()?, halted: field("HLT")? == "1" })
    }
}

/// Bytes read and written by all drives so far, as the monitor's `info blockstats` tells it.
pub fn disk_bytes(text: &str) -> u64 {
    let numbers = text.split_whitespace().filter_map(|word| {
        let number = word.strip_prefix("rd_bytes=").or_else(|| word.strip_prefix("wr_bytes="))?;
        number.parse::<u64>().ok()
    });
    numbers.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_both_widths() {
        let text = "\nCPU#0\nRAX=0000000000000000 RBX=0000000000000000\n\
                    RIP=ffffffff8a1f2b3c RFL=00000246 [---Z-P-] CPL=0 II=0 A20=1 SMM=0 HLT=1\n\
                    \nCPU#1\nEAX=00000000\nEIP=00007c00 EFL=00000202 [-------] CPL=0 II=0 A20=1 SMM=0 HLT=0\n";
        let processors = Processor::parse(text);
        assert_eq!(processors.len(), 2);
        assert!(processors[0].in_linux() && processors[0].halted && !processors[0].in_program());
        assert!(!processors[1].in_linux() && !processors[1].halted);
        assert_eq!(processors[1].counter, 0x7c00);
    }

    #[test]
    fn what_drives_moved_is_added_up() {
        let text =
            "medium (#block1): rd_bytes=2048 wr_bytes=0 rd_operations=1\npflash0: rd_bytes=10 wr_bytes=5\n";
        assert_eq!(disk_bytes(text), 2063);
        assert_eq!(disk_bytes(""), 0);
    }

    #[test]
    fn a_program_is_neither_kernel_nor_firmware() {
        let line = "RIP=00007f31c2e01d3b RFL=00000246 [---Z-P-] CPL=3 II=0 A20=1 SMM=0 HLT=0";
        let [processor] = Processor::parse(line)[..] else { panic!() };
        assert!(processor.in_program() && !processor.in_linux());
        assert_eq!(Processor::parse("nonsense\nRIP=xyz CPL=0 HLT=0"), []);
    }
}
