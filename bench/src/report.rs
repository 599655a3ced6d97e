//! What was measured, and how it is shown: a table for people, a CSV file with every single value.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::plot;
use crate::stats::{Spread, ratios};

/// What a figure is wanted to be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Aim {
    AtLeast(f64),
    AtMost(f64),
}

impl Aim {
    /// The bound itself.
    pub fn bound(self) -> f64 {
        match self {
            Aim::AtLeast(bound) | Aim::AtMost(bound) => bound,
        }
    }

    /// Whether a figure is as wanted.
    pub fn is_met_by(self, value: f64) -> bool {
        match self {
            Aim::AtLeast(bound) => value >= bound,
            Aim::AtMost(bound) => value <= bound,
        }
    }

    fn shown(self) -> String {
        match self {
            Aim::AtLeast(bound) => format!("≥ {}", number(bound)),
            Aim::AtMost(bound) => format!("≤ {}", number(bound)),
        }
    }
}

/// One thing measured, once in each round.
#[derive(Clone, Debug)]
pub struct Case {
    pub name: String,
    pub unit: &'static str,
    /// In the order of the rounds.
    pub values: Vec<f64>,
    pub aim: Option<Aim>,
}

/// A case of its section.
#[derive(Clone, Copy, Debug)]
pub struct CaseId(usize);

/// One case over another.
#[derive(Clone, Debug)]
pub struct Ratio {
    pub name: String,
    pub of_medians: f64,
    pub of_rounds: Spread,
    pub aim: Option<Aim>,
}

/// What one part has measured.
#[derive(Clone, Debug)]
pub struct Section {
    title: String,
    notes: Vec<String>,
    cases: Vec<Case>,
    ratios: Vec<Ratio>,
}

impl Section {
    /// An empty one. `about` says what was measured and how.
    pub fn new(title: &str, about: &str) -> Section {
        Section {
            title: title.to_owned(),
            notes: vec![about.to_owned()],
            cases: Vec::new(),
            ratios: Vec::new(),
        }
    }

    /// Adds a sentence below the title.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Adds a case with what each round gave.
    pub fn case(&mut self, name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> CaseId {
        self.cases.push(Case {
            name: name.into(),
            unit,
            values,
            aim: None,
        });
        CaseId(self.cases.len() - 1)
    }

    /// Says what a case's median is wanted to be.
    pub fn aim(&mut self, case: CaseId, aim: Aim) {
        self.cases[case.0].aim = Some(aim);
    }

    /// Compares two cases.
    pub fn ratio(&mut self, name: impl Into<String>, of: CaseId, to: CaseId, aim: Option<Aim>) {
        let (of, to) = (&self.cases[of.0].values, &self.cases[to.0].values);
        self.ratios.push(Ratio {
            name: name.into(),
            of_medians: Spread::of(of).median / Spread::of(to).median,
            of_rounds: Spread::of(&ratios(of, to)),
            aim,
        });
    }

    /// The cases, in the order in which they were added.
    pub fn cases(&self) -> &[Case] {
        &self.cases
    }

    /// The ratios, in the order in which they were added.
    pub fn ratios(&self) -> &[Ratio] {
        &self.ratios
    }

    /// The section as it is printed and written.
    pub fn markdown(&self) -> String {
        let mut out = format!("## {}\n", self.title);
        for note in &self.notes {
            let _ = write!(out, "\n{note}\n");
        }
        out.push_str("\n| measured | median | least | most | unit | aim |\n|---|--:|--:|--:|---|---|\n");
        for case in &self.cases {
            let spread = Spread::of(&case.values);
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} | {} | {} |",
                case.name,
                number(spread.median),
                number(spread.least),
                number(spread.most),
                case.unit,
                verdict(case.aim, spread.median)
            );
        }
        if self.ratios.is_empty() {
            return out;
        }
        out.push_str(
            "\n| ratio | of medians | of rounds | least | most | aim |\n|---|--:|--:|--:|--:|---|\n",
        );
        for ratio in &self.ratios {
            let rounds = ratio.of_rounds;
            let _ = writeln!(
                out,
                "| {} | {:.3} | {:.3} | {:.3} | {:.3} | {} |",
                ratio.name,
                ratio.of_medians,
                rounds.median,
                rounds.least,
                rounds.most,
                verdict(ratio.aim, ratio.of_medians)
            );
        }
        out
    }
}

fn verdict(aim: Option<Aim>, value: f64) -> String {
    aim.map_or_else(String::new, |aim| {
        let met = if aim.is_met_by(value) { "met" } else { "**missed**" };
        format!("{}, {met}", aim.shown())
    })
}

/// Three digits that count, or all of a larger number.
fn number(value: f64) -> String {
    let digits = match value.abs() {
        size if size >= 100.0 => 0,
        size if size >= 10.0 => 1,
        size if size >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

/// All that a run has measured.
#[derive(Debug)]
pub struct Report {
    facts: Vec<(&'static str, String)>,
    sections: Vec<(&'static str, Section)>,
}

impl Report {
    /// Begins with what is known of the machine.
    pub fn new(facts: Vec<(&'static str, String)>) -> Report {
        facts.iter().for_each(|(name, value)| println!("{name}: {value}"));
        println!();
        Report {
            facts,
            sections: Vec::new(),
        }
    }

    /// Adds what a part has measured.
    pub fn add(&mut self, part: &'static str, section: Section) {
        self.sections.push((part, section));
    }

    /// Writes `name`.md, `name`.csv and `name`.svg.
    ///
    /// # Errors
    /// Those of making files.
    pub fn write(&self, folder: &Path, name: &str) -> io::Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join(name).with_extension("md"), self.markdown(name))?;
        fs::write(folder.join(name).with_extension("csv"), self.csv())?;
        let sections: Vec<&Section> = self.sections.iter().map(|(_, section)| section).collect();
        plot::draw(&folder.join(name).with_extension("svg"), &sections)
    }

    fn markdown(&self, name: &str) -> String {
        let mut out = format!("# What was measured\n\n![ratios and times]({name}.svg)\n\n| | |\n|---|---|\n");
        for (fact, value) in &self.facts {
            let _ = writeln!(out, "| {fact} | {value} |");
        }
        for (_, section) in &self.sections {
            let _ = write!(out, "\n{}", section.markdown());
        }
        out
    }

    fn csv(&self) -> String {
        let mut out = String::from("part,case,unit,round,value\n");
        for (part, section) in &self.sections {
            for case in &section.cases {
                for (round, value) in case.values.iter().enumerate() {
                    let name = case.name.replace('"', "\"\"");
                    let _ = writeln!(out, "{part},\"{name}\",{},{},{value}", case.unit, round + 1);
                }
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_section_shows_medians_ratios_and_whether_aims_are_met() {
        let mut section = Section::new("Speed", "How fast.");
        let bare = section.case("bare", "rows/s", vec![100.0, 200.0, 300.0]);
        let ours = section.case("ours", "rows/s", vec![90.0, 190.0, 310.0]);
        section.aim(ours, Aim::AtLeast(195.0));
        section.ratio("ours / bare", ours, bare, Some(Aim::AtLeast(0.9)));
        let text = section.markdown();
        assert!(
            text.contains("| ours | 190 | 90.0 | 310 | rows/s | ≥ 195, **missed** |"),
            "{text}"
        );
        assert!(
            text.contains("| ours / bare | 0.950 | 0.950 | 0.900 | 1.033 | ≥ 0.900, met |"),
            "{text}"
        );
    }

    #[test]
    fn the_csv_file_has_every_value() {
        let mut section = Section::new("Speed", "How fast.");
        section.case("a, \"b\"", "s", vec![1.5, 2.0]);
        let mut report = Report::new(Vec::new());
        report.add("part", section);
        assert_eq!(
            report.csv(),
            "part,case,unit,round,value\npart,\"a, \"\"b\"\"\",s,1,1.5\npart,\"a, \"\"b\"\"\",s,2,2\n"
        );
    }
}
