//! The pure part of isokiln: what a pipeline file means, what a stage's identity is, what a layer
//! holds, what a boot proved. No files, no processes, no network, no clock: everything here is a
//! function of its arguments.

pub mod archive;
pub mod boot;
pub mod diagnostic;
pub mod digest;
pub mod event;
pub mod exit;
pub mod image;
pub mod junit;
pub mod keep;
pub mod kind;
pub mod layer;
pub mod names;
pub mod pipeline;
pub mod plan;
pub mod record;
pub mod review;
pub mod session;
pub mod suggest;
mod table;
pub mod units;
