//! A session with a scripted judge: what it asks, what it keeps, and how it fails.

mod scripted;

use std::{path::Path, time::Duration};

use scripted::{
    Scripted,
    server::{Answer, polite, reply},
};
use serde_json::{Map, json};
use upright_base::{
    ErrorKind,
    progress::{Progress, Silent, Stop},
};
use upright_judge::{Judge, Key, Pair, Protocol, WinRate, cost::Price, judging::Session};

/// The judge that `scripted` is, with replies in a folder.
fn judge_at(scripted: &Scripted, folder: &Path) -> Judge {
    Judge {
        url: format!("http://{}/v1", scripted.address),
        model: "scripted".into(),
        key: None,
        protocol: Protocol::BothOrders,
        seed: 0,
        options: Map::new(),
        parallel: 4,
        timeout: Duration::from_secs(20),
        pause: Duration::from_millis(2),
        price: None,
        max_cost: None,
        replies: folder.join("replies.jsonl"),
    }
}

fn open(judge: Judge) -> Session {
    judge.open(&mut Silent).unwrap()
}

/// Pairs whose model is polite in every even pair, and whose last pair is equal.
fn pairs(count: usize) -> Vec<Pair> {
    let mut pairs = Vec::new();
    for index in 0..count {
        let output = if index % 2 == 0 {
            "Thank you, gladly."
        } else {
            "No."
        };
        pairs.push(Pair {
            instruction: format!("question {index}"),
            reference: "Yes, please.".into(),
            output: format!("{output} {index}"),
        });
    }
    pairs[count - 1].output = pairs[count - 1].reference.clone();
    pairs
}

fn status(code: u16, more: &str, message: &str) -> Option<Answer> {
    let body = json!({"error": {"message": message}}).to_string();
    Some((code, more.to_owned(), body))
}

#[test]
fn every_pair_is_judged_in_both_orders_and_asked_once() {
    let folder = tempfile::tempdir().unwrap();
    let scripted = Scripted::new(|_, request| polite(request));
    let session = open(judge_at(&scripted, folder.path()));
    let pairs = pairs(9);
    let plan = session.plan(&pairs);
    assert_eq!((plan.calls, plan.known), (16, 0));
    let judged = session.ask("m", &pairs, &mut Silent).unwrap();
    assert_eq!(scripted.asked(), 16);
    for (index, judged) in judged.iter().enumerate() {
        let preference = judged.preference().unwrap();
        let expected = match index {
            8 => preference == 1.5,
            _ if index % 2 == 0 => preference > 1.5,
            _ => preference < 1.5,
        };
        assert!(expected, "{index}: {judged:?}");
    }
    let rate = WinRate::of(&pairs, &judged);
    assert_eq!(
        (rate.wins, rate.ties, rate.losses, rate.missing),
        (4, 1, 4, 0)
    );
    // The judge has a weakness for what it reads first.
    assert!(rate.first_shown.unwrap().mean > 50.0);
    drop(session);

    let session = open(judge_at(&scripted, folder.path()));
    assert_eq!(session.plan(&pairs).known, 16);
    assert_eq!(session.ask("m", &pairs, &mut Silent).unwrap(), judged);
    assert_eq!(scripted.asked(), 16, "a second start asks nothing");
}

#[test]
fn garbage_is_a_missing_verdict_that_a_second_start_asks_for() {
    let folder = tempfile::tempdir().unwrap();
    let scripted = Scripted::new(|number, request| match number {
        0 => Some((200, String::new(), "{\"choices\": []".into())),
        1 => Some((200, String::new(), "null".into())),
        2 => Some((
            200,
            String::new(),
            json!({"choices": [{"message": {"content": "both"}}]}).to_string(),
        )),
        _ => Some((200, String::new(), reply(request, 0.25).to_string())),
    });
    let judge = Judge {
        parallel: 1,
        protocol: Protocol::Fn,
        ..judge_at(&scripted, folder.path())
    };
    let pairs = pairs(7);
    let session = open(judge.clone());
    let judged = session.ask("m", &pairs, &mut Silent).unwrap();
    let rate = WinRate::of(&pairs, &judged);
    assert_eq!((rate.pairs, rate.missing, scripted.asked()), (7, 3, 6));
    assert!(rate.bounds[0] < rate.rate.mean && rate.rate.mean < rate.bounds[1]);
    drop(session);
    let session = open(judge);
    assert_eq!(session.plan(&pairs).known, 3);
    let judged = session.ask("m", &pairs, &mut Silent).unwrap();
    assert_eq!(WinRate::of(&pairs, &judged).missing, 0);
    assert_eq!(
        scripted.asked(),
        9,
        "only the missing verdicts are asked again"
    );
}

#[test]
fn a_busy_or_broken_judge_is_asked_again() {
    let folder = tempfile::tempdir().unwrap();
    let scripted = Scripted::new(|number, request| match number {
        0 => status(429, "Retry-After: 0\r\n", "slow down"),
        1 => status(500, "", "oops"),
        2 => None,
        3 => Some((200, "Content-Length: 99999\r\n".into(), "{".into())),
        4 => status(503, "retry-after-ms: 1\r\n", "loading"),
        5 => status(
            408,
            "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\n",
            "late",
        ),
        _ => polite(request),
    });
    let judge = Judge {
        parallel: 1,
        protocol: Protocol::Weighted,
        ..judge_at(&scripted, folder.path())
    };
    let pairs = pairs(2);
    let judged = open(judge).ask("m", &pairs, &mut Silent).unwrap();
    assert!(judged.iter().all(|judged| judged.preference().is_some()));
}

#[test]
fn a_judge_that_stays_broken_or_refuses_is_an_error_with_its_words() {
    let pairs = pairs(3);
    for (code, words, kind, hint) in [
        (500, "on fire", ErrorKind::Failure, "what is missing"),
        (401, "no such key", ErrorKind::Input, "--judge-key-env"),
        (404, "no such model", ErrorKind::Input, "--judge-model"),
        (
            400,
            "max_tokens is not supported",
            ErrorKind::Input,
            "--judge-options",
        ),
        (307, "", ErrorKind::Input, "--judge-url"),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let scripted =
            Scripted::new(move |_, _| status(code, "Location: http://elsewhere/\r\n", words));
        let error = open(judge_at(&scripted, folder.path()))
            .ask("m", &pairs, &mut Silent)
            .unwrap_err();
        assert_eq!(error.kind, kind, "{error}");
        assert!(error.message.contains(words), "{error}");
        assert!(error.hint.contains(hint), "{}", error.hint);
    }
}

#[test]
fn a_judge_that_hangs_is_an_error_and_a_stop_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let scripted = Scripted::new(|_, _| {
        std::thread::sleep(Duration::from_secs(600));
        None
    });
    let judge = Judge {
        timeout: Duration::from_millis(50),
        ..judge_at(&scripted, folder.path())
    };
    let error = open(judge).ask("m", &pairs(3), &mut Silent).unwrap_err();
    assert!(error.message.contains("no answer in 8 attempts"), "{error}");

    struct Stopped;
    impl Progress for Stopped {
        fn stop(&self) -> Stop {
            Stop::when(|| true)
        }
    }
    let judge = Judge {
        timeout: Duration::from_secs(2),
        replies: folder.path().join("others.jsonl"),
        ..judge_at(&scripted, folder.path())
    };
    let error = open(judge).ask("m", &pairs(3), &mut Stopped).unwrap_err();
    assert_eq!(error.kind, ErrorKind::Interrupted);
    assert!(error.hint.contains("what is missing"), "{}", error.hint);
}

#[test]
fn the_budget_holds_before_and_while_asking() {
    let folder = tempfile::tempdir().unwrap();
    let scripted = Scripted::new(|_, request| {
        let mut reply = reply(request, 0.3);
        reply["usage"] = json!({"prompt_tokens": 1_000_000, "completion_tokens": 0});
        Some((200, String::new(), reply.to_string()))
    });
    let judge = |max_cost| Judge {
        parallel: 1,
        price: Some(Price {
            prompt: 1.0,
            reply: 2.0,
        }),
        max_cost: Some(max_cost),
        ..judge_at(&scripted, folder.path())
    };
    let pairs = pairs(9);
    let session = open(judge(1e-6));
    let estimate = session.plan(&pairs).tokens;
    assert!(
        session
            .check_cost(estimate)
            .unwrap_err()
            .message
            .contains("max-cost")
    );
    drop(session);
    assert_eq!(scripted.asked(), 0);
    // Replies are far more expensive than estimated: each costs a dollar.
    let session = open(judge(3.5));
    session.check_cost(estimate).unwrap();
    let error = session.ask("m", &pairs, &mut Silent).unwrap_err();
    assert!(error.message.contains("is reached: 4.0000 USD"), "{error}");
    assert_eq!(scripted.asked(), 4);
    drop(session);
    assert_eq!(open(judge(20.0)).plan(&pairs).known, 4, "replies are kept");
    let unpriced = Judge {
        price: None,
        ..judge(1.0)
    };
    assert!(
        unpriced
            .open(&mut Silent)
            .unwrap_err()
            .message
            .contains("needs the judge's prices")
    );
}

#[test]
fn a_key_goes_to_the_judge_alone_and_never_unencrypted() {
    let folder = tempfile::tempdir().unwrap();
    let judge = |url: &str| {
        let scripted = Judge {
            url: url.to_owned(),
            key: Some(Key::new("SECRET")),
            ..judge_at(&Scripted::new(|_, request| polite(request)), folder.path())
        };
        scripted.open(&mut Silent)
    };
    let error = judge("http://judge.example.com/v1").unwrap_err();
    assert!(error.message.contains("unencrypted"), "{error}");
    assert!(!error.message.contains("SECRET"));
    assert!(
        judge("ftp://127.0.0.1")
            .unwrap_err()
            .message
            .contains("judge-url")
    );
    let scripted = Scripted::new(|_, request| polite(request));
    let with_key = Judge {
        key: Some(Key::new("SECRET")),
        ..judge_at(&scripted, folder.path())
    };
    open(with_key).ask("m", &pairs(3), &mut Silent).unwrap();
    for entry in std::fs::read_dir(folder.path()).unwrap() {
        let text = std::fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains("SECRET"));
    }
    assert!(!format!("{:?}", Key::new("SECRET")).contains("SECRET"));
}
