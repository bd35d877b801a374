//! The figures of a run, kept for the next one: a loss is what lies outside the spread of both.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use super::measure::median;

/// A figure of which less is better: the middle of its rounds, and between what they lay.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Figure {
    middle: f64,
    low: f64,
    high: f64,
}

/// What was measured in one run, by its name.
#[derive(Default)]
pub(super) struct Ledger {
    /// How it was measured: figures of other sizes can't be compared.
    setting: String,
    figures: BTreeMap<String, Figure>,
}

impl Ledger {
    pub(super) fn new(setting: String) -> Ledger {
        Ledger { setting, figures: BTreeMap::new() }
    }

    /// Adds a figure by its rounds. Where it depends on the machine it is a ratio of two that were measured in turn.
    pub(super) fn add(&mut self, name: String, rounds: Vec<f64>) {
        let low = rounds.iter().copied().fold(f64::INFINITY, f64::min);
        let high = rounds.iter().copied().fold(0.0, f64::max);
        if !rounds.is_empty() {
            self.figures.insert(name, Figure { middle: median(rounds), low, high });
        }
    }

    /// Compares with what is kept, and keeps the better of both, so that a loss in small steps is one too; where
    /// something was lost it stays as it is, and what is new is put beside it.
    pub(super) fn settle(&self, file: &Path) -> Result<String> {
        let Some(before) = Ledger::read(file)? else {
            self.write(file)?;
            return Ok(format!("No run before this one: its figures are in {}.\n", file.display()));
        };
        if before.setting != self.setting {
            self.write(file)?;
            return Ok(format!(
                "The run before was another one ({}), and is not compared with.\n",
                before.setting
            ));
        }
        let (text, lost) = self.beside(&before)?;
        if lost.is_empty() {
            self.better(before).write(file)?;
            return Ok(text);
        }
        let beside = beside(file);
        self.write(&beside)?;
        bail!(
            "{text}\nlost against the run before: {}; its figures stay in {}, the new ones are in {}",
            lost.join(", "),
            file.display(),
            beside.display()
        )
    }

    /// Both in a table, and the names of what was lost.
    fn beside(&self, before: &Ledger) -> Result<(String, Vec<&str>)> {
        let mut text = String::from("| less is better | before | now | |\n|---|---|---|---|\n");
        let mut lost = Vec::new();
        for (name, now) in &self.figures {
            let Some(then) = before.figures.get(name) else { continue };
            let spread = (then.high - then.low).max(now.high - now.low);
            let word = match now.middle - then.middle {
                more if more > spread && more > then.middle * LOSS_MIN => {
                    lost.push(name.as_str());
                    "lost"
                }
                less if -less > spread && -less > then.middle * LOSS_MIN => "won",
                _ => "",
            };
            writeln!(text, "| {name} | {:.3} | {:.3} | {word} |", then.middle, now.middle)?;
        }
        Ok((text, lost))
    }

    /// Of each figure the lower one.
    fn better(&self, before: Ledger) -> Ledger {
        let mut kept = before;
        for (name, now) in &self.figures {
            let then = kept.figures.entry(name.clone()).or_insert(*now);
            if now.middle < then.middle {
                *then = *now;
            }
        }
        kept
    }

    fn read(file: &Path) -> Result<Option<Ledger>> {
        let bytes = match std::fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            bytes => bytes?,
        };
        let value: Value = serde_json::from_slice(&bytes)?;
        let parsed = || {
            let setting = value["setting"].as_str()?.to_owned();
            let figure = |(name, value): (&String, &Value)| {
                let number = |field: &str| value[field].as_f64();
                let figure = Figure {
                    middle: number("middle")?,
                    low: number("low")?,
                    high: number("high")?,
                };
                Some((name.clone(), figure))
            };
            let figures =
                value["figures"].as_object()?.iter().map(figure).collect::<Option<_>>()?;
            Some(Ledger { setting, figures })
        };
        let other = || format!("{} is no record of a run: remove it", file.display());
        parsed().with_context(other).map(Some)
    }

    fn write(&self, file: &Path) -> Result<()> {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|(name, Figure { middle, low, high })| {
                (name.clone(), json!({"middle": middle, "low": low, "high": high}))
            })
            .collect();
        let text =
            serde_json::to_string_pretty(&json!({"setting": self.setting, "figures": figures}))?;
        Ok(std::fs::write(file, text + "\n")?)
    }
}

/// A change of less than this part of a figure is none, however close the rounds lay.
const LOSS_MIN: f64 = 0.02;

fn beside(file: &Path) -> PathBuf {
    file.with_extension("lost.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ledger(setting: &str, ratio: f64, bytes: f64) -> Ledger {
        let mut ledger = Ledger::new(setting.to_owned());
        ledger.add("full to cp".to_owned(), vec![ratio * 1.1, ratio, ratio * 0.9]);
        ledger.add("stored".to_owned(), vec![bytes]);
        ledger
    }

    #[test]
    fn what_lies_outside_the_spread_of_both_is_lost_and_the_run_before_stays() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("last.json");
        let settle = |ledger: Ledger| ledger.settle(&file);
        assert!(settle(ledger("300 MB", 1.0, 500.0)).unwrap().contains("No run before"));
        for _ in 0..3 {
            let told = settle(ledger("300 MB", 1.15, 505.0)).unwrap();
            assert!(!told.contains("lost"), "within the spread: {told}");
        }
        assert!(
            settle(ledger("300 MB", 1.3, 505.0)).is_err(),
            "what is kept is the best, not the last"
        );
        let error = settle(ledger("300 MB", 1.5, 505.0)).unwrap_err().to_string();
        assert!(error.contains("lost against the run before: full to cp;"), "{error}");
        let error = settle(ledger("300 MB", 1.15, 520.0)).unwrap_err().to_string();
        assert!(error.contains("lost against the run before: stored;"), "{error}");
        assert!(settle(ledger("300 MB", 0.5, 400.0)).unwrap().contains("won"));
        let error = settle(ledger("300 MB", 1.15, 400.0)).unwrap_err().to_string();
        assert!(error.contains("full to cp"), "what was won is the measure from then on: {error}");
    }

    #[test]
    fn another_run_is_not_compared_with_and_what_is_no_record_is_an_error() {
        let scratch = tempfile::tempdir().unwrap();
        let file = scratch.path().join("last.json");
        ledger("300 MB", 1.0, 500.0).settle(&file).unwrap();
        let told = ledger("600 MB", 9.0, 900.0).settle(&file).unwrap();
        assert!(told.contains("(300 MB)"), "{told}");
        std::fs::write(&file, "{}").unwrap();
        let error = ledger("600 MB", 9.0, 900.0).settle(&file).unwrap_err().to_string();
        assert!(error.contains("no record"), "{error}");
    }
}
