//! A boot test against a machine that is made up here.
