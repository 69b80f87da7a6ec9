//! `/events`.

use std::collections::HashSet;

use engine::types::Event;
use engine::{EventOptions, Filters};
use tokio::time::{Duration, Instant};

use crate::answer::{Failure, Outcome};
use crate::body::{self, AsyncWriter};
use crate::hub::{self, Listener};
use crate::request::Request;
use crate::server::Server;

/// Seconds, with a fraction perhaps, as ns; or a time of RFC 3339.
pub(crate) fn moment(text: &str) -> Result<i64, Failure> {
    let invalid = || Failure::invalid(format!("invalid time {text:?}: give seconds since 1970"));
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 9 || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(invalid());
    }
    let seconds: i64 = seconds.parse().map_err(|_| invalid())?;
    let nanoseconds: i64 = format!("{fraction:0<9}").parse().map_err(|_| invalid())?;
    seconds
        .checked_mul(1_000_000_000)
        .and_then(|ns| ns.checked_add(nanoseconds))
        .ok_or_else(invalid)
}

/// What tells one event from another.
type Mark = (i64, String, String);

fn mark(event: &Event) -> Mark {
    (event.time_nano, event.action.clone(), event.actor.id.clone())
}

pub(crate) async fn stream(request: Request, server: &Server) -> Outcome {
    let filters = request.query().filters()?;
    let since = request.query().text("since").map(moment).transpose()?;
    let until = request.query().text("until").map(moment).transpose()?;
    // Checked here, so that a wrong name is an answer and not the end of a stream.
    let check = filters.clone();
    server.work.ask(move |engine| engine.check_event_filters(&check)).await?;
    let listener = server.hub.listen();
    let (writer, answer) = body::open("application/json");
    let follow = Follow { server: server.clone(), filters, until, seen: HashSet::new() };
    tokio::spawn(follow.run(since, listener, writer));
    Ok(answer)
}

struct Follow {
    server: Server,
    filters: Filters,
    until: Option<i64>,
    /// Those among the past ones that may be heard again.
    seen: HashSet<Mark>,
}

/// How long after its time an event may become visible: it is written in a transaction.
const LATE: i64 = 5_000_000_000;

impl Follow {
    async fn run(mut self, since: Option<i64>, mut listener: Listener, writer: AsyncWriter) {
        let mut last = hub::now();
        if let Some(since) = since
            && !self.past(since, last, &writer).await
        {
            return;
        }
        let end = self.until.map(|until| {
            let left = u64::try_from(until.saturating_sub(hub::now())).unwrap_or(0);
            Instant::now() + Duration::from_nanos(left)
        });
        loop {
            tokio::select! {
                event = listener.next() => match event {
                    Some(event) => {
                        last = event.time_nano;
                        if self.wanted(&event) && !write(&event, &writer).await {
                            return;
                        }
                    }
                    // Too slow to hear all of them: they are in the database.
                    None => {
                        let now = hub::now();
                        if !self.past(last.saturating_add(1), now, &writer).await {
                            return;
                        }
                    }
                },
                () = at(end) => return,
                () = writer.closed() => return,
            }
        }
    }

    fn wanted(&mut self, event: &Event) -> bool {
        if !engine::event_matches(event, &self.filters) {
            return false;
        }
        self.seen.is_empty() || !self.seen.remove(&mark(event))
    }

    /// Writes the events of a time; false if nobody listens any more.
    async fn past(&mut self, since: i64, now: i64, writer: &AsyncWriter) -> bool {
        let until = self.until.map_or(now, |until| until.min(now));
        let options =
            EventOptions { since: Some(since), until: Some(until), filters: self.filters.clone() };
        let read = self.server.work.ask(move |engine| {
            let mut events = Vec::new();
            engine.events(options, &mut |event| {
                events.push(event);
                true
            })?;
            Ok(events)
        });
        let Ok(events) = read.await else { return false };
        for event in events {
            if !write(&event, writer).await {
                return false;
            }
            if event.time_nano > now.saturating_sub(LATE) {
                self.seen.insert(mark(&event));
            }
        }
        true
    }
}

async fn at(end: Option<Instant>) {
    match end {
        Some(end) => tokio::time::sleep_until(end).await,
        None => std::future::pending().await,
    }
}

async fn write(event: &Event, writer: &AsyncWriter) -> bool {
    let Ok(mut bytes) = serde_json::to_vec(event) else { return true };
    bytes.push(b'\n');
    writer.send(bytes).await
}

#[cfg(test)]
mod tests {
    use super::moment;

    #[test]
    fn moments() {
        assert_eq!(moment("1").unwrap(), 1_000_000_000);
        assert_eq!(moment("1.5").unwrap(), 1_500_000_000);
        assert_eq!(moment("1700000000.000000001").unwrap(), 1_700_000_000_000_000_001);
        for wrong in ["", "x", "1.x", "1.0000000001", "99999999999999999999", "9999999999999"] {
            assert!(moment(wrong).is_err(), "{wrong}");
        }
    }
}
