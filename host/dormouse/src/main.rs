//! `dormouse`: the autoscaler, the DLX, a demo and tools for plugin authors in one binary.

use std::process::ExitCode;

/// Many small, short-lived allocations on two kinds of threads: the default allocator gives memory back late.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    dormouse::cli::main()
}
