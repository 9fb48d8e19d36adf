//! Builds against a sandbox that is made up here.
