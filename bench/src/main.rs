//! Measures pg_redis_cache: what it costs, and how fast it is.
//!
//! What it does: each part starts servers of its own through the tests' harness, measures what is compared
//! in turns within one run, and gives a [`Section`] of cases and ratios. A ratio is of
//! medians, with the spread of the rounds' own ratios beside it: what the machine does meanwhile hits both
//! sides.
//!
//! What it guarantees: nothing of the machine is touched, as for the tests; every value that a figure is
//! made of is in the CSV file.
//!
//! What it does not: assert. A figure that misses its aim is shown as such, and the run succeeds.

mod bare;
mod bulk;
mod engine;
mod fdw;
mod feed;
mod lag;
mod links;
mod load;
mod machine;
mod memory;
mod peers;
mod plot;
mod report;
mod stats;
mod structures;
mod synchronous;
mod throughput;

use std::path::PathBuf;
use std::process::ExitCode;

use pg_redis_cache_tests::repository;
use report::{Report, Section};

/// How long to measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// To see whether the machinery works.
    Quick,
    /// For figures to be believed.
    Full,
}

impl Effort {
    /// `PG_REDIS_CACHE_BENCH_QUICK` in the environment, set to anything but 0, asks for a short run.
    fn wanted() -> Effort {
        match std::env::var("PG_REDIS_CACHE_BENCH_QUICK") {
            Ok(value) if !value.is_empty() && value != "0" => Effort::Quick,
            _ => Effort::Full,
        }
    }

    /// The first for a quick run, the second for a full one.
    pub fn pick<T>(self, quick: T, full: T) -> T {
        match self {
            Effort::Quick => quick,
            Effort::Full => full,
        }
    }
}

struct Part {
    name: &'static str,
    /// Whether a run without arguments has it.
    usual: bool,
    measure: fn(Effort) -> Section,
}

const PARTS: &[Part] = &[
    Part {
        name: "throughput",
        usual: true,
        measure: throughput::measure,
    },
    Part {
        name: "bulk",
        usual: true,
        measure: bulk::measure,
    },
    Part {
        name: "lag",
        usual: true,
        measure: lag::measure,
    },
    Part {
        name: "synchronous",
        usual: true,
        measure: synchronous::measure,
    },
    Part {
        name: "worker",
        usual: true,
        measure: feed::measure,
    },
    Part {
        name: "links",
        usual: true,
        measure: links::measure,
    },
    Part {
        name: "memory",
        usual: true,
        measure: memory::measure,
    },
    Part {
        name: "engine",
        usual: true,
        measure: engine::measure,
    },
    Part {
        name: "structures",
        usual: true,
        measure: structures::measure,
    },
    Part {
        name: "fdw",
        usual: true,
        measure: fdw::measure,
    },
    Part {
        name: "soak",
        usual: false,
        measure: memory::soak,
    },
];

fn main() -> ExitCode {
    let asked: Vec<String> = std::env::args().skip(1).collect();
    if let Some(unknown) = asked
        .iter()
        .find(|name| !PARTS.iter().any(|part| part.name == **name))
    {
        let names: Vec<&str> = PARTS.iter().map(|part| part.name).collect();
        eprintln!("error: no part {unknown}; there are {}", names.join(", "));
        return ExitCode::FAILURE;
    }
    let effort = Effort::wanted();
    let wanted = |part: &&Part| {
        if asked.is_empty() {
            part.usual
        } else {
            asked.iter().any(|name| name == part.name)
        }
    };
    let mut report = Report::new(machine::facts(effort));
    for part in PARTS.iter().filter(wanted) {
        eprintln!("==> {}", part.name);
        let section = (part.measure)(effort);
        println!("{}", section.markdown());
        report.add(part.name, section);
    }
    let (folder, name) = place(&asked, effort);
    match report.write(&folder, name) {
        Ok(()) => {
            println!("written to {}/{name}.md, .csv and .svg", folder.display());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {}: {error}", folder.display());
            ExitCode::FAILURE
        }
    }
}

/// Only a whole run, or a whole soak, replaces the results that are kept in the repository.
fn place(asked: &[String], effort: Effort) -> (PathBuf, &'static str) {
    let kept = repository().join("bench/results");
    match asked {
        [] if effort == Effort::Full => (kept, "bench"),
        [only] if only == "soak" && effort == Effort::Full => (kept, "soak"),
        _ => (repository().join(".build/bench"), "bench"),
    }
}
