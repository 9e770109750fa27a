//! The [load client](../../bin/load.rs), as one process or several that share a task: connected, done, ended.

use std::io::{BufRead as _, BufReader, Lines, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// What several clients say that can be added up. Quantiles cannot.
const SUMS: [&str; 5] = ["asked", "answered", "wrong", "body_bytes", "not_asked"];

/// Clients with all of their connections open.
pub(crate) struct Clients(Vec<Client>);

impl Clients {
    /// Starts them one after another, each when the connections of the one before are open; each command stands with the number of
    /// its connections. Says how far it is, as many connections take a while.
    pub(crate) fn start(commands: Vec<(u32, Command)>) -> Result<Self> {
        let all: u32 = commands.iter().map(|(connections, _)| connections).sum();
        let (mut clients, mut open, several) = (Vec::new(), 0, commands.len() > 1);
        for (connections, mut command) in commands {
            let client = Client::start(&mut command);
            clients.push(client.with_context(|| format!("{open} of {all} connections are open"))?);
            open += connections;
            if several {
                eprintln!("  {open} of {all} connections are open");
            }
        }
        Ok(Self(clients))
    }

    /// Sends the requests; what came of them. Connections stay open.
    pub(crate) fn run(&mut self) -> Result<Value> {
        self.0.iter_mut().try_for_each(Client::begin)?;
        let mut said = self.0.iter_mut().map(Client::report).collect::<Result<Vec<Value>>>()?;
        Ok(if said.len() == 1 { said.remove(0) } else { together(&said) })
    }
}

fn together(said: &[Value]) -> Value {
    let sum = |name: &str| said.iter().filter_map(|one| one[name].as_u64()).sum::<u64>();
    SUMS.iter().map(|name| ((*name).to_owned(), json!(sum(name)))).collect::<serde_json::Map<_, _>>().into()
}

/// One process. It ends by itself when this value goes out of scope.
struct Client {
    child: Child,
    tell: Option<ChildStdin>,
    says: Lines<BufReader<ChildStdout>>,
}

impl Client {
    fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start the load client")?;
        let tell = child.stdin.take();
        let says = BufReader::new(child.stdout.take().context("it has an output")?).lines();
        let mut client = Self { child, tell, says };
        let said = client.line()?;
        ensure!(said == "open", "the load client says {said:?}");
        Ok(client)
    }

    fn line(&mut self) -> Result<String> {
        self.says.next().context("the load client has ended")?.context("the load client")
    }

    fn begin(&mut self) -> Result<()> {
        Ok(self.tell.as_mut().context("it runs once")?.write_all(b"\n")?)
    }

    fn report(&mut self) -> Result<Value> {
        let report: Value = serde_json::from_str(&self.line()?).context("what the load client says")?;
        ensure!(report["wrong"] == 0, "the server has mixed up responses: {report}");
        Ok(report)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // The end of its input ends it, wherever it stands but in its requests, which end by their time.
        drop(self.tell.take());
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_of_several_are_added_and_quantiles_are_not() {
        let one = |answered: u64| json!({ "asked": 7, "answered": answered, "wrong": 0, "p50_ns": 5 });
        let all = together(&[one(6), one(7)]);
        assert_eq!((&all["asked"], &all["answered"], &all["p50_ns"]), (&json!(14), &json!(13), &Value::Null));
    }
}
