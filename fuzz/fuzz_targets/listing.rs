//! Listings of the hub: the input is an id in its first line, and below it JSON, which is read as a listing and as an index
//! of weights.

#![no_main]

use libfuzzer_sys::fuzz_target;
use upright_hub::{Id, of_adapter, of_data, of_model, parse_listing, shards};

fuzz_target!(|input: &str| {
    let (id, json) = input.split_once('\n').unwrap_or(("org/name", input));
    let Ok((_, names)) = parse_listing(json) else {
        return;
    };
    let repo = "org/name";
    let _ = of_model(repo, &names);
    let _ = of_adapter(repo, &names);
    let _ = shards(repo, json, &names);
    if let Some(id) = Id::parse(id) {
        let _ = of_data(&id, &names);
    }
});
