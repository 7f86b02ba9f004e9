//! SVG and PNG of the same figure.

use super::*;

fn every_mark() -> Figure {
    let mut figure = Figure::new("Every mark <there is> & its looks", 2, [220.0, 160.0]);
    let mut left = Panel::new("", Axis::linear("steps"), Axis::log("gap (nats)"));
    left.add(
        Mark::Band(vec![[0.0, 0.1, 1.0], [10.0, 0.2, 2.0]]),
        Style::series(0).opacity(0.2),
        "spread",
    );
    left.add(
        Mark::Line(vec![[0.0, 1.0], [5.0, 0.0], [6.0, 0.5], [10.0, 0.01]]),
        Style::series(0),
        "sequential",
    );
    left.add(
        Mark::ErrorBars(vec![[6.0, 0.5, 0.6]]),
        Style::series(1),
        "error",
    );
    left.add(Mark::Vertical(3.0), Style::thin(Ink::Muted), "");
    left.add(Mark::Horizontal(0.1), Style::thin(Ink::Muted), "");
    left.add(
        Mark::Note([9.9, 0.5], "a note".into()),
        Style::thin(Ink::Text),
        "",
    );
    left.add(
        Mark::ErrorBarsAcross(vec![[6.0, 0.5, 2.0]]),
        Style::series(1),
        "error across",
    );
    let mut right = Panel::new(
        "right",
        Axis::categories("method", &["mix", "alright"]),
        Axis::linear("loss").from(0.0, 2.0),
    );
    right.add(
        Mark::bars(&[[0.0, 1.0], [1.0, 5.0]], 0.6),
        Style::series(2),
        "bars",
    );
    right.add(
        Mark::Points(vec![[0.0, 0.5], [9.0, 9.0]]),
        Style::series(3).marker(Marker::Star),
        "star",
    );
    right.add(
        Mark::Dots(vec![[0.2, 0.5], [0.2, 0.5], [0.4, 1.5]]),
        Style::series(4),
        "dots",
    );
    let bowl = Grid::of([-0.5, 1.5], [0.0, 2.0], 30, |x, y| x * x + y * y);
    right.add(
        Mark::Contours(bowl, vec![0.5, 1.0]),
        Style::thin(Ink::Series(5)),
        "sequential",
    );
    figure.panels = vec![left, right];
    figure
}

#[test]
fn an_svg_is_well_formed_and_says_what_it_shows() {
    let svg = every_mark().svg();
    for part in [
        "Every mark &lt;there is&gt; &amp; its looks",
        ">steps<",
        ">gap (nats)<",
        ">mix<",
        ">a note<",
        ">0.5<",
    ] {
        assert!(svg.contains(part), "{part}\n{svg}");
    }
    // The legend has each name once.
    assert_eq!(svg.matches(">sequential<").count(), 1);
    assert!(
        svg.contains("prefers-color-scheme:dark") && !svg.contains("NaN") && !svg.contains("inf")
    );
    // Every element is closed: empty elements by themselves, the others in order.
    let mut open = Vec::new();
    for tag in svg
        .split('<')
        .skip(1)
        .map(|rest| rest.split('>').next().unwrap())
    {
        match tag.strip_prefix('/') {
            Some(name) => assert_eq!(open.pop(), Some(name)),
            None if tag.ends_with('/') => {}
            None => open.push(tag.split(' ').next().unwrap()),
        }
    }
    assert!(open.is_empty());
}

#[test]
fn a_page_has_the_rules_of_its_pictures_once() {
    let figure = every_mark();
    let (whole, inline) = (figure.svg(), figure.inline_svg());
    assert!(!inline.contains("<style>") && !inline.contains("xmlns") && whole.contains(&css()));
    // The shapes are the same.
    let shapes = |svg: &str| svg[svg.find("<rect").unwrap()..].to_owned();
    assert_eq!(shapes(&whole), shapes(&inline));
}

#[test]
fn a_figure_fits_into_a_width_and_panels_may_share_their_names() {
    let mut figure = every_mark();
    for width in [500.0, 900.0] {
        assert!((layout::lay_out(&figure.clone().fit(width)).size[0] - width).abs() < 1e-9);
    }
    // A second panel with the same rows does not repeat their names and needs no space for them.
    let rows = || Axis::categories("", &["a rather long name", "short"]);
    let panel = |y: Axis| Panel::new("", Axis::linear("x"), y);
    figure.panels = vec![panel(rows()), panel(rows())];
    let twice = layout::lay_out(&figure);
    figure.panels[1].y = rows().unlabeled();
    let once = layout::lay_out(&figure);
    assert!(once.size[0] < twice.size[0] - 50.0);
    assert_eq!(figure.svg().matches(">short<").count(), 1);
}

/// Neither the legend nor a label is cut: long names have several lines.
#[test]
fn long_names_have_several_lines() {
    let long = "maxright with a name of many words ".repeat(12);
    let unbroken = "a-folder-name-without-a-single-space-in-it-".repeat(4);
    let mut figure = Figure::new("", 1, [600.0, 100.0]);
    let mut panel = Panel::new(
        "",
        Axis::linear("x"),
        Axis::categories("", &[&unbroken, "short"]),
    );
    for name in [&long[..], "short"] {
        panel.add(
            Mark::Line(vec![[0.0, 0.0], [1.0, 1.0]]),
            Style::thin(Ink::Text),
            name,
        );
    }
    figure.panels.push(panel);
    let figure = figure.fit(900.0);
    assert!(figure.panel_size[0] > 500.0, "{:?}", figure.panel_size);
    let drawing = layout::lay_out(&figure);
    let mut shown = String::new();
    for shape in &drawing.shapes {
        let drawing::Shape::Text(text) = shape else {
            continue;
        };
        let length = font::width(&text.text, text.size);
        let [left, right] = match text.anchor {
            drawing::Anchor::Start => [text.at[0], text.at[0] + length],
            drawing::Anchor::Middle => [text.at[0] - length / 2.0, text.at[0] + length / 2.0],
            drawing::Anchor::End => [text.at[0] - length, text.at[0]],
        };
        assert!(left >= 0.0 && right <= drawing.size[0], "{}", text.text);
        shown += &text.text;
        shown.push(' ');
    }
    assert!(shown.contains(long.trim()), "{shown}");
    assert!(shown.replace(' ', "").contains(&unbroken), "{shown}");
    assert!(label_height(&unbroken) > label_height("short"));
}

#[test]
fn nothing_is_drawn_outside_of_the_picture() {
    let drawing = layout::lay_out(&every_mark());
    for shape in &drawing.shapes {
        let points = match shape {
            drawing::Shape::Line(points, _) | drawing::Shape::Area(points, ..) => points.clone(),
            drawing::Shape::Dots(points, ..) => points.clone(),
            drawing::Shape::Text(text) => vec![text.at],
        };
        for [x, y] in points {
            assert!(
                x >= 0.0 && y >= 0.0 && x <= drawing.size[0] && y <= drawing.size[1],
                "{shape:?}"
            );
        }
    }
}

/// Width, height and the color of the first pixel, read back from the bytes of the file.
fn read_png(bytes: &[u8]) -> (u32, u32, [u8; 3]) {
    let mut reader = ::png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    (info.width, info.height, [pixels[0], pixels[1], pixels[2]])
}

#[test]
fn a_png_is_as_large_as_the_svg_and_has_its_theme() {
    let figure = every_mark();
    let [light, dark] =
        [Theme::Light, Theme::Dark].map(|theme| read_png(&figure.png(theme).unwrap()));
    let [width, height] = layout::lay_out(&figure)
        .size
        .map(|length| (length as f32 * 2.0).ceil() as u32);
    assert_eq!(light, (width, height, [255, 255, 255]));
    assert_eq!(dark, (width, height, [0x0d, 0x11, 0x17]));
}

#[test]
fn pictures_are_saved_in_both_formats() {
    let dir = tempfile::tempdir().unwrap();
    let path = every_mark().save(dir.path(), "marks").unwrap();
    assert_eq!(path, dir.path().join("marks.svg"));
    let mut names: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|f| f.unwrap().file_name())
        .collect();
    names.sort();
    assert_eq!(names, ["marks-dark.png", "marks.png", "marks.svg"]);
    assert!(
        every_mark()
            .save(&dir.path().join("missing"), "marks")
            .is_err()
    );
}

/// The contrast ratio of WCAG: (lighter + 0.05) / (darker + 0.05) of relative luminances.
#[test]
fn every_ink_of_text_and_series_stands_out_from_the_paper() {
    let luminance = |rgb: u32| {
        let [_, r, g, b] = rgb.to_be_bytes().map(|byte| {
            let c = f64::from(byte) / 255.0;
            if c <= 0.04045 {
                c / 12.92
            } else {
                ((c + 0.055) / 1.055).powf(2.4)
            }
        });
        0.2126 * r + 0.7152 * g + 0.0722 * b
    };
    for theme in [Theme::Light, Theme::Dark] {
        let paper = luminance(Ink::Paper.rgb(theme));
        for ink in [Ink::Text, Ink::Muted]
            .into_iter()
            .chain((0..Ink::SERIES).map(Ink::Series))
        {
            let own = luminance(ink.rgb(theme));
            let contrast = (paper.max(own) + 0.05) / (paper.min(own) + 0.05);
            assert!(contrast >= 4.5, "{ink:?} {theme:?}: {contrast}");
        }
    }
}

#[test]
fn styles_differ_in_more_than_color() {
    let looks: Vec<_> = (0..Ink::SERIES)
        .map(|i| (Style::series(i).dash, Style::series(i).marker))
        .collect();
    assert!((0..looks.len()).all(|i| !looks[..i].contains(&looks[i])));
}
