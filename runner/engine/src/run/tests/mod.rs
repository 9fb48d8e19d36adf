//! The scheduler of builds, on a sandbox that is a fake and a store that is real.

mod advice;
mod bench;
mod builds;
mod cancels;
mod damage;
mod disk;
mod fake;
mod faults;
mod layers;
mod parallel;
mod properties;
mod recovers;
