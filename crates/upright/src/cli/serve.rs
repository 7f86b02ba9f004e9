//! `upright serve`: an OpenAI-compatible server for a model and its adapters.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::Args;

use super::{machine::Machine, template, terminal::Terminal};
use upright_base::{Error, Result, progress::Progress};
use upright_data::{Template, TemplateName};
use upright_engine::DeviceAdapter;
use upright_hub::Hub;
use upright_runs::{
    plan,
    settings::{
        Number,
        checks::{count, folder, real},
    },
};
use upright_serve::{Served, ServedAdapter, Settings, Speech, bind};
use upright_train::{generate::ends, run::Model};

/// Examples in `--help`.
pub(super) const EXAMPLES: &str = "\
Examples:
  upright serve --model path/to/model --adapter first=runs/first
  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
      -d '{\"model\": \"first\", \"prompt\": \"A heron is\", \"max_tokens\": 20}'
  lm_eval run --model local-completions --tasks mmlu_anatomy \\
      --model_args model=first,base_url=http://127.0.0.1:8000/v1/completions";

/// Serves a model and its adapters over HTTP.
#[derive(Args, Debug)]
pub(super) struct Serve {
    /// Base model: a folder in Hugging Face layout, or a Hub id.
    #[arg(long, value_name = "DIR|ID")]
    model: PathBuf,
    /// Adapter to serve beside the base: a PEFT folder, a run folder, or a Hub id; may be repeated
    /// [default name: the last part of the path]
    #[arg(long, value_name = "[NAME=]DIR|ID")]
    adapter: Vec<String>,
    /// Folder below which requests may name adapters to load; without it they may load none.
    #[arg(long, value_name = "DIR")]
    allow_adapters: Option<PathBuf>,
    /// Maximum adapters in memory; more are refused until one is unloaded [default: 16]
    #[arg(
        long,
        value_name = "N",
        requires = "allow_adapters",
        allow_hyphen_values = true
    )]
    max_adapters: Option<Number>,
    /// Name of the base in requests [default: the last part of --model]
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Address to listen on. Any but a loopback address requires --api-key-env.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1")]
    host: String,
    /// Port to listen on; 0 takes a free port.
    #[arg(long, value_name = "PORT", default_value_t = 8000)]
    port: u16,
    /// Environment variable that holds the key that clients must send.
    #[arg(long, value_name = "VARIABLE")]
    api_key_env: Option<String>,
    /// Origin of web pages that may use the server, such as http://localhost:3000, or * for all; may
    /// be repeated.
    #[arg(long, value_name = "ORIGIN")]
    cors: Vec<String>,
    /// Template of conversations: chat (the model's chat template; also chat:NAME or
    /// chat@YYYY-MM-DD), alpaca, user-assistant, raw, or a .jinja file [default: the template of the
    /// adapter's run, else the default of upright train]
    #[arg(long, value_name = "NAME")]
    template: Option<String>,
    /// Memory in GB for key-value caches [default: half of the available memory]
    #[arg(long, value_name = "GB", allow_hyphen_values = true)]
    kv_memory: Option<Number>,
    /// Maximum prompt tokens that one pass computes [default: 2048]
    #[arg(long, value_name = "TOKENS", allow_hyphen_values = true)]
    token_budget: Option<Number>,
    /// Maximum prompts that wait; more are refused with status 503 [default: 2048]
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    queue: Option<Number>,
    /// Maximum size of a request in MB [default: 32]
    #[arg(long, value_name = "MB", allow_hyphen_values = true)]
    max_body: Option<Number>,
    /// Maximum seconds in which a request must arrive [default: 30]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    receive_timeout: Option<Number>,
    /// Maximum seconds in which a request must be answered [default: 3600]
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    timeout: Option<Number>,
    #[command(flatten)]
    machine: Machine,
}

/// An adapter as given on the command line.
struct Given {
    name: String,
    path: PathBuf,
}

/// The last part of a path or a Hub id, without a revision.
fn last_part(path: &Path) -> String {
    let name = path.file_name().unwrap_or(path.as_os_str());
    let name = name.to_string_lossy();
    name.split('@').next().unwrap_or_default().to_owned()
}

impl Serve {
    fn settings(&self) -> Result<Settings> {
        let api_key = match &self.api_key_env {
            None => None,
            Some(name) => match std::env::var(name) {
                Ok(key) if !key.trim().is_empty() => Some(key.trim().to_owned()),
                _ => {
                    return Err(Error::input(format!(
                        "api-key-env: the variable {name} is empty or not set"
                    ))
                    .hint(format!("set it, e.g. export {name}=...")));
                }
            },
        };
        let kv_memory = match &self.kv_memory {
            None => None,
            given => {
                let is_size = |gigabytes: f64| gigabytes > 0.0 && gigabytes.is_finite();
                let size = real("kv-memory", given.as_ref(), 1.0, "be above 0", is_size)?;
                Some((size * 1e9) as usize)
            }
        };
        let usual = Settings::default();
        let megabytes = usual.body_bytes >> 20;
        let receive = usual.receive_timeout.as_secs() as usize;
        let answer = usual.answer_timeout.as_secs() as usize;
        let receive = count("receive-timeout", self.receive_timeout.as_ref(), receive)?;
        let answer = count("timeout", self.timeout.as_ref(), answer)?;
        Ok(Settings {
            host: self.host.clone(),
            port: self.port,
            api_key,
            allow_adapters: self.allow_adapters.clone(),
            max_adapters: count(
                "max-adapters",
                self.max_adapters.as_ref(),
                usual.max_adapters,
            )?,
            cors: self.cors.clone(),
            cache_bytes: kv_memory,
            token_budget: count(
                "token-budget",
                self.token_budget.as_ref(),
                usual.token_budget,
            )?,
            queue: count("queue", self.queue.as_ref(), usual.queue)?,
            body_bytes: count("max-body", self.max_body.as_ref(), megabytes)?
                .saturating_mul(1 << 20),
            receive_timeout: Duration::from_secs(receive as u64),
            answer_timeout: Duration::from_secs(answer as u64),
        })
    }

    fn adapters(&self) -> Vec<Given> {
        let mut all = Vec::with_capacity(self.adapter.len());
        for given in &self.adapter {
            // An existing path may contain an equals sign.
            let named = given.split_once('=').filter(|_| !Path::new(given).exists());
            all.push(match named {
                Some((name, path)) => Given {
                    name: name.to_owned(),
                    path: PathBuf::from(path),
                },
                None => Given {
                    name: last_part(Path::new(given)),
                    path: PathBuf::from(given),
                },
            });
        }
        all
    }
}

/// How the base, or the adapter of a run, takes part in conversations. `asked` takes precedence.
fn speech(
    model: &Model,
    asked: Option<&TemplateName>,
    adapter: Option<&Path>,
    observer: &mut dyn Progress,
) -> Result<Speech> {
    let template = match template::choose(asked, adapter, &[], &model.tokenizer, observer) {
        Ok(chosen) => Ok(chosen.template),
        Err(error) if asked.is_some() => return Err(error),
        Err(error) => {
            observer.note(&format!("warning: no conversations: {error}"));
            Err(error.to_string())
        }
    };
    let ends = match &template {
        Ok(template) => ends(&model.model, template, &model.tokenizer)?,
        Err(_) => ends(&model.model, &Template::Raw, &model.tokenizer)?,
    };
    Ok(Speech { template, ends })
}

/// Opens the adapter in a PEFT folder or a run folder. `given` is how the command or a request names
/// the folder.
fn open_adapter(
    model: &Model,
    asked: Option<&TemplateName>,
    given: &Path,
    folder: &Path,
    observer: &mut dyn Progress,
) -> Result<(DeviceAdapter, Speech)> {
    let adapter = model.load_adapter(folder, observer)?;
    let speech = speech(model, asked, Some(given), observer)?;
    Ok((adapter, speech))
}

/// Runs the command.
pub(super) fn run(arguments: &Serve) -> Result<()> {
    let settings = arguments.settings()?;
    let is_open = settings.api_key.is_none() && arguments.cors.iter().any(|origin| origin == "*");
    let options = arguments.machine.options()?;
    let asked = arguments
        .template
        .as_deref()
        .map(|name| plan::template("template", name))
        .transpose()?;
    let given = arguments.adapters();
    let mut terminal = Terminal::new();
    let hub = Hub::from_environment();
    let mut found = Vec::with_capacity(given.len());
    for Given { name, path } in given {
        let folder = hub.adapter("adapter", &path, &mut terminal)?;
        found.push((name, path, folder));
    }
    let path = hub.model("model", &arguments.model, &mut terminal)?;
    let path = folder("model", &path, "give a model folder")?;
    let model = Arc::new(Model::open(&path, &options, &mut terminal)?);
    let mut adapters = Vec::with_capacity(found.len());
    for (name, path, folder) in found {
        let opened = open_adapter(&model, asked.as_ref(), &path, &folder, &mut terminal)?;
        let (adapter, speech) = opened;
        adapters.push(ServedAdapter {
            name,
            adapter,
            speech,
        });
    }
    let speech = speech(&model, asked.as_ref(), None, &mut terminal)?;
    let base = match &arguments.name {
        Some(name) => name.clone(),
        None => last_part(&arguments.model),
    };
    let mut names = vec![base.clone()];
    names.extend(adapters.iter().map(|adapter| adapter.name.clone()));
    let owned = Arc::clone(&model);
    let open = move |folder: &Path| {
        let mut terminal = Terminal::new();
        open_adapter(&owned, asked.as_ref(), folder, folder, &mut terminal)
    };
    let server = bind(
        settings,
        Served {
            name: base,
            root: arguments.model.display().to_string(),
            base: model,
            speech,
            adapters,
            open: Box::new(open),
        },
    )?;
    if is_open {
        terminal.note(
            "warning: with --cors * and no key, every web page that a browser on this machine opens \
             can use the server",
        );
    }
    let address = server.address();
    server.run(|| {
        terminal.note(&format!(
            "serving {} at http://{address}/v1; Ctrl-C stops the server",
            names.join(", ")
        ));
    })
}
