//! `eval`: accuracy on pictures whose labels are known.

use std::fmt::Write as _;

use graft_cli::threads;
use graft_engine::Engine;
use graft_engine::evaluate::{Evaluation, evaluate};
use graft_engine::listing::list_split;
use graft_shared::error::{Error, Result};
use graft_shared::files::write_atomic;

use crate::cli::EvalArguments;
use crate::{Outcome, print, report};

pub(crate) fn run(arguments: &EvalArguments) -> Result<Outcome> {
    let engine = Engine::open(&arguments.model)?;
    let photos = list_split(&arguments.source, &arguments.split)?;
    let evaluation = evaluate(&engine, &photos, threads(arguments.threads), &|_| {})?;
    for (path, reason) in &evaluation.refused {
        report(&Error::new(format!("can't evaluate `{}`", path.display())).source(reason.clone()));
    }
    if let Some(file) = &arguments.predictions {
        write_atomic(file, evaluation.predictions_tsv().as_bytes())?;
    }
    print(&if arguments.json {
        format!("{}\n", evaluation.to_json()?)
    } else {
        text(&evaluation)
    })?;
    Ok(Outcome::of(evaluation.refused.len()))
}

/// The figures for people: shares in percent, labels in the model's order.
fn text(evaluation: &Evaluation) -> String {
    let mut text = String::new();
    let _ = write!(
        text,
        "{} pictures, {} refused\ntop-1 {:.2} %   top-5 {:.2} %   macro recall {:.2} %\n\n",
        evaluation.images,
        evaluation.refused.len(),
        100.0 * evaluation.top1,
        100.0 * evaluation.top5,
        100.0 * evaluation.macro_recall
    );
    let width = evaluation
        .classes
        .iter()
        .map(|class| class.label.chars().count())
        .fold("label".len(), usize::max);
    let _ = writeln!(
        text,
        "{:width$}  pictures  precision  recall     f1  most taken for",
        "label"
    );
    for (index, class) in evaluation.classes.iter().enumerate() {
        let _ = writeln!(
            text,
            "{:width$}  {:8}  {:7.1} %  {:4.1} %  {:4.1} %  {}",
            class.label,
            class.images,
            100.0 * class.precision,
            100.0 * class.recall,
            100.0 * class.f1,
            most_taken_for(evaluation, index)
        );
    }
    text
}

/// The label that this one's pictures were most often given wrongly, and how many; empty where all are right.
fn most_taken_for(evaluation: &Evaluation, label: usize) -> String {
    let Some(row) = evaluation.confusion.get(label) else {
        return String::new();
    };
    row.iter()
        .zip(&evaluation.classes)
        .enumerate()
        .filter(|(other, (count, _))| *other != label && **count > 0)
        // Of equal counts the first.
        .rev()
        .max_by_key(|(_, (count, _))| **count)
        .map_or_else(String::new, |(_, (count, class))| {
            format!("{} ({count})", class.label)
        })
}
