//! Reading an ISO before it is booted: boot records, partition tables, the files, the EFI system partition, boot-loader
//! configurations, kernels and the live system, and what can be expected of boot tests by all that.
//!
//! Every parser here takes bytes of an unknown ISO: whatever they are, it ends soon, in little memory, without a panic.

mod esp;
mod expectations;
mod extents;
mod facts;
mod fat;
mod files;
mod images;
mod inspection;
mod kernel;
mod layers;
mod loader;
mod partitions;
mod pe;
mod system;
mod tree;

pub use esp::Esp;
pub use expectations::{Expectation, Expectations, Outlook};
pub use extents::{Extent, ExtentReader};
pub use facts::{BootEntry, IsoFacts, NotAnIso, Platform};
pub use files::{Entry, Files, Kind, ListingBudget};
pub use images::RootImage;
pub use inspection::Inspection;
pub use kernel::{Initrd, Kernel};
pub use layers::Layers;
pub use loader::{Loader, LoaderConfig, MenuEntry};
pub use partitions::{Partition, PartitionTables, Table};
pub use pe::EfiProgram;
pub use system::{Initramfs, LiveScheme, Modules, System, UnitState};
pub use tree::{IsoNode, IsoTree};
