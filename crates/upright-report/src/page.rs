//! The page: one HTML document that needs nothing else, built from small pieces. Every text that comes from a run or a file
//! goes through [`escaped`].

use std::fmt::Write;

use super::{
    Report, Verdict,
    figures::Shown,
    glossary, labels, prose,
    run::Run,
    table,
    table::{Cell, Table},
    tables,
};
use upright_core::metrics::Call;

/// The HTML document.
pub(super) fn page(report: &Report, figures: &[Shown]) -> String {
    let title = prose::title(report);
    let mut sections: Vec<(&str, &str, String)> =
        vec![("read", "How to read this", how_to_read(report))];
    if !report.claims.is_empty() {
        sections.push(("claims", "What the paper claims", claims(report)));
    }
    sections.push(("results", "Where every arm ends", results(report)));
    for shown in figures {
        let shown_below = match shown.table {
            "gaps" => Some(tables::gaps(report)),
            "cost" => Some(tables::cost(report)),
            "fronts" => tables::fronts(report),
            "probes" => tables::probes(report),
            _ => None,
        };
        let table = shown_below.map(|table| folded(&table)).unwrap_or_default();
        sections.push((shown.name, shown.heading, figure(shown) + &table));
    }
    if !report.answers.is_empty() {
        sections.push(("answers", "Answers side by side", answers(report)));
    }
    sections.push(("runs", "The runs", runs(report)));

    let links = sections
        .iter()
        .map(|(id, heading, _)| format!("<li><a href=\"#{id}\">{heading}</a></li>"));
    let mut html = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n<title>{}</title>\n<style>\n{}{}\n</style>\n</head>\n<body>\n\
         <header>\n<p class=\"kicker\">upright report</p>\n<h1>{}</h1>\n{}{}<nav aria-label=\"Sections\"><ul>{}</ul></nav>\n\
         </header>\n<main>\n",
        escaped(&title),
        include_str!("page.css"),
        upright_plot::css(),
        escaped(&title),
        lede(report),
        warnings(report) + &in_short(report),
        links.collect::<String>()
    );
    for (id, heading, body) in &sections {
        let class = if *id == "read" { " class=\"box\"" } else { "" };
        let _ = writeln!(
            html,
            "<section{class}>\n<h2 id=\"{id}\">{heading}</h2>\n{body}</section>"
        );
    }
    let _ = write!(
        html,
        "</main>\n<footer>\n<p>Written by upright {} from the runs' folders alone: a copied folder gives the same page. Figures \
         lie in <code>figures/</code>, tables in <code>tables/</code> beside it.</p>\n</footer>\n</body>\n</html>\n",
        env!("CARGO_PKG_VERSION")
    );
    html
}

/// Text as it may stand in an element or in a quoted attribute.
pub(super) fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&#39;")
}

fn paragraph(text: &str) -> String {
    format!("<p>{}</p>\n", escaped(text))
}

fn lede(report: &Report) -> String {
    let about = report
        .study
        .about
        .as_deref()
        .map(|about| format!("<p class=\"lede\">{}</p>\n", escaped(about)));
    about.unwrap_or_default()
        + &prose::what_was_run(report)
            .iter()
            .map(|text| paragraph(text))
            .collect::<String>()
}

fn warnings(report: &Report) -> String {
    let warning = |text: &String| format!("<p class=\"warning\">{}</p>\n", escaped(text));
    prose::warnings(report).iter().map(warning).collect()
}

fn in_short(report: &Report) -> String {
    let words = prose::in_short(report);
    let paragraphs: String = words.iter().map(|text| paragraph(text)).collect();
    if words.is_empty() {
        String::new()
    } else {
        format!("<div class=\"short\">\n{paragraphs}</div>\n")
    }
}

fn how_to_read(report: &Report) -> String {
    let mut html = "<div class=\"columns\">\n".to_owned();
    for (name, text) in glossary::how_to_read(report) {
        let _ = writeln!(
            html,
            "<p><strong>{}</strong> {}</p>",
            escaped(&name),
            escaped(&text)
        );
    }
    html + "</div>\n"
}

/// Every claim with its verdict and the numbers behind it.
fn claims(report: &Report) -> String {
    let mut html = paragraph(&prose::how_claims_are_decided(report));
    html.push_str("<ul class=\"claims\">\n");
    for claim in &report.claims {
        let summary = claim.summary();
        let class = match claim.call() {
            Some(Call::Yes) => "good",
            Some(Call::No) => "bad",
            Some(Call::TooCloseToCall) => "close",
            None => "part",
        };
        let _ = writeln!(
            html,
            "<li class=\"{class}\"><p>{}: <span class=\"verdict\">{summary}</span>{}.</p>",
            escaped(&claim.text),
            claim.mark()
        );
        let numbers: String = claim.verdicts.iter().map(verdict).collect();
        if claim.verdicts.len() > 1 {
            let at: Vec<String> = claim
                .verdicts
                .iter()
                .map(|verdict| format!("{}: {}", verdict.at, verdict.words()))
                .collect();
            let _ = write!(
                html,
                "<p class=\"numbers\">{}</p>\n<details><summary>The numbers</summary>\n{numbers}</details>\n",
                escaped(&at.join(" · "))
            );
        } else {
            html += &numbers;
        }
        html.push_str("</li>\n");
    }
    html + "</ul>\n"
}

fn verdict(verdict: &Verdict) -> String {
    verdict
        .lines()
        .iter()
        .map(|line| format!("<p class=\"numbers\">{}</p>\n", escaped(line)))
        .collect()
}

fn results(report: &Report) -> String {
    let table = tables::results(report);
    let mut html = prose::results(report)
        .iter()
        .map(|text| paragraph(text))
        .collect::<String>();
    html += &table_html(&table);
    html + &files("tables", table.name, &[".csv", ".md"])
}

/// A table in a box of its own, which scrolls sideways where there is no room for it.
fn table_html(table: &Table) -> String {
    let mut html = format!(
        "<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n<table>\n<thead>\n",
        escaped(&table.title)
    );
    let starts = |i: usize| i > 0 && table.columns[i].group != table.columns[i - 1].group;
    let class = |i: usize, also: &str| {
        let numeric = if table.is_numeric(i) { "number" } else { "" };
        let first = if starts(i) { "first" } else { "" };
        let words: Vec<&str> = [numeric, first, also]
            .into_iter()
            .filter(|word| !word.is_empty())
            .collect();
        if words.is_empty() {
            String::new()
        } else {
            format!(" class=\"{}\"", words.join(" "))
        }
    };
    if table.columns.iter().any(|column| !column.group.is_empty()) {
        html.push_str("<tr>");
        let mut i = 0;
        while i < table.columns.len() {
            let group = &table.columns[i].group;
            let span = table.columns[i..]
                .iter()
                .take_while(|column| column.group == *group)
                .count();
            let class = if group.is_empty() {
                ""
            } else {
                " class=\"group first\""
            };
            let _ = write!(
                html,
                "<th colspan=\"{span}\" scope=\"colgroup\"{class}>{}</th>",
                escaped(group)
            );
            i += span;
        }
        html.push_str("</tr>\n");
    }
    html.push_str("<tr>");
    for (i, column) in table.columns.iter().enumerate() {
        let _ = write!(
            html,
            "<th scope=\"col\"{}>{}</th>",
            class(i, ""),
            escaped(&column.name)
        );
    }
    html.push_str("</tr>\n</thead>\n<tbody>\n");
    for (r, row) in table.rows.iter().enumerate() {
        let reference = if table.references.contains(&r) {
            " class=\"reference\""
        } else {
            ""
        };
        let _ = write!(html, "<tr{reference}>");
        for (i, cell) in row.iter().enumerate() {
            let best = if table.is_best(r, i) { "best" } else { "" };
            let wide = if table::is_long(cell) { "wide" } else { "" };
            let _ = match i {
                0 => write!(html, "<th scope=\"row\">{}</th>", shown(cell)),
                _ => write!(
                    html,
                    "<td{}>{}</td>",
                    class(i, &format!("{best}{wide}")),
                    shown(cell)
                ),
            };
        }
        html.push_str("</tr>\n");
    }
    html + "</tbody>\n</table>\n</div>\n"
}

fn shown(cell: &Cell) -> String {
    let text = escaped(&cell.shown());
    match text.split_once(" ± ") {
        Some((mean, error)) if matches!(cell, Cell::Spread(..)) => {
            format!("{mean} <span class=\"error\">± {error}</span>")
        }
        _ => text,
    }
}

/// A table behind a line that opens it.
fn folded(table: &Table) -> String {
    let files = files("tables", table.name, &[".csv", ".md"]);
    format!(
        "<details><summary>The numbers: {}</summary>\n{}{files}</details>\n",
        escaped(&table.title),
        table_html(table)
    )
}

fn figure(shown: &Shown) -> String {
    let links = files("figures", shown.name, &[".svg", ".png", "-dark.png"]);
    let numbers = files("tables", shown.table, &[".csv", ".md"]);
    format!(
        "<figure>\n<div class=\"scroll\" tabindex=\"0\" role=\"region\" aria-label=\"{}\">\n{}</div>\n\
         <figcaption>{}</figcaption>\n</figure>\n{}",
        escaped(&shown.figure.title),
        shown.figure.inline_svg(),
        escaped(&shown.caption),
        links.replace("</p>\n", "")
            + " · numbers: "
            + numbers.trim_start_matches("<p class=\"files\">")
    )
}

/// Links to the files of a figure or of a table.
fn files(folder: &str, name: &str, endings: &[&str]) -> String {
    let said = |ending: &str| match ending {
        ".svg" => "SVG",
        ".png" => "PNG",
        "-dark.png" => "PNG, dark",
        ".csv" => "CSV",
        _ => "Markdown",
    };
    let link = |ending: &&str| format!("<a href=\"{folder}/{name}{ending}\">{}</a>", said(ending));
    format!(
        "<p class=\"files\">{}</p>\n",
        endings.iter().map(link).collect::<Vec<_>>().join(" · ")
    )
}

fn answers(report: &Report) -> String {
    let mut html = String::new();
    for asked in &report.answers {
        let _ = writeln!(
            html,
            "<p class=\"prompt\">{}</p>\n<div class=\"answers\">",
            escaped(&asked.prompt)
        );
        for answer in &asked.answers {
            let (who, text) = (escaped(&answer.run), escaped(&answer.text));
            let _ = writeln!(html, "<div><h3>{who}</h3><p>{text}</p></div>");
        }
        html.push_str("</div>\n");
    }
    if report.answers.len() > 3 {
        format!(
            "<details open><summary>{} prompts</summary>\n{html}</details>\n",
            report.answers.len()
        )
    } else {
        html
    }
}

/// Every run with its folder and the settings in which the runs differ, and those that could not be read.
fn runs(report: &Report) -> String {
    let settings: Vec<_> = report
        .runs
        .iter()
        .map(labels::comparable_settings)
        .collect();
    let differing = labels::differing_keys(&settings);
    let columns = ["folder", "arm", "steps", "settings that differ"]
        .map(table::Column::new)
        .to_vec();
    let mut table = Table::new(
        "runs",
        "Runs and the settings in which they differ",
        columns,
    );
    for (index, (run, settings)) in report.runs.iter().zip(&settings).enumerate() {
        let arm = report
            .arms
            .iter()
            .find(|arm| arm.all.contains(&index))
            .map_or("", |arm| &arm.label);
        let steps = match (run.is_finished(), run.planned) {
            (_, 0) => "none".into(),
            (true, planned) if run.ended_early() => {
                format!("{} of {planned}: it reached its goal", run.steps)
            }
            (true, steps) => steps.to_string(),
            (false, planned) => format!("unfinished: {} of {planned}", run.steps),
        };
        let own = settings.iter().filter(|(key, _)| differing.contains(key));
        let own = own
            .map(|(key, value)| format!("{key} {value}"))
            .collect::<Vec<_>>()
            .join("; ");
        let text = |text: &str| Cell::Text(text.to_owned());
        table
            .rows
            .push(vec![text(&run.place), text(arm), text(&steps), text(&own)]);
    }
    let mut html = String::new();
    let unfinished = report.runs.iter().filter(|run| !run.is_finished()).count();
    if unfinished > 0 {
        html += &paragraph(
            "Runs that are not finished are marked; they count in no mean, unless their arm has no other run.",
        );
    }
    if report.runs.iter().any(Run::ended_early) {
        html += &paragraph(
            "Some runs reached their goal before their last step, and ended there: losses on training rows that their plan names, \
             in a study those at which ALRIGHT's runs ended (the reference front) and the ideal point.",
        );
    }
    if !report.damaged.is_empty() {
        html += &paragraph("These could not be read and count in nothing:");
        html.push_str("<ul>\n");
        for damaged in &report.damaged {
            let _ = writeln!(
                html,
                "<li><code>{}</code>: {}</li>",
                escaped(&damaged.place),
                escaped(&damaged.why)
            );
        }
        html.push_str("</ul>\n");
    }
    let open = if report.runs.len() <= 6 { " open" } else { "" };
    html + &format!(
        "<details{open}><summary>{} runs</summary>\n{}</details>\n",
        report.runs.len(),
        table_html(&table)
    )
}
