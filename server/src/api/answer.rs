//! Headers that the operator wants on responses: by `default`, by class (`2xx`), by status (`404`); the closer one wins.
//! They lie over the server's own. A reload changes them under running cores.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

/// As the configuration has them: by class, then by name, all values.
pub type Wished = BTreeMap<String, BTreeMap<String, Vec<String>>>;

type Pairs = Vec<(HeaderName, HeaderValue)>;

/// The headers of a listener.
#[derive(Debug, Default)]
pub struct AnswerHeaders {
    /// Most listeners have none; then nothing is locked.
    any: AtomicBool,
    current: RwLock<Arc<Sets>>,
}

#[derive(Debug, Default)]
struct Sets {
    always: Pairs,
    classes: [Pairs; 5],
    statuses: BTreeMap<u16, Pairs>,
}

impl AnswerHeaders {
    /// Compiles the operator's wishes, and `own`, which the process itself adds to every response.
    pub fn new(wished: &Wished, own: &[(&'static str, String)]) -> AnswerHeaders {
        let headers = AnswerHeaders::default();
        headers.replace(wished, own);
        headers
    }

    /// Puts others in their place. What is no header's name or value is left out.
    pub fn replace(&self, wished: &Wished, own: &[(&'static str, String)]) {
        let mut sets = Sets::default();
        for (name, value) in own {
            if let Ok(value) = HeaderValue::from_str(value) {
                sets.always.push((HeaderName::from_static(name), value));
            }
        }
        for (class, headers) in wished {
            let pairs = headers.iter().filter_map(|(name, values)| {
                let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
                Some((name, HeaderValue::from_str(&values.join("; ")).ok()?))
            });
            match (class.as_str(), class.as_bytes()) {
                ("default", _) => sets.always.extend(pairs),
                (_, [digit @ b'1'..=b'5', b'x', b'x']) => sets.classes[usize::from(digit - b'1')].extend(pairs),
                (number, _) => {
                    if let Ok(status) = number.parse() {
                        sets.statuses.entry(status).or_default().extend(pairs);
                    }
                }
            }
        }
        let any = !wished.is_empty() || !own.is_empty();
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(sets);
        self.any.store(any, Ordering::Release);
    }

    /// Lays them over a response's headers.
    pub fn apply(&self, status: u16, headers: &mut HeaderMap) {
        if !self.any.load(Ordering::Acquire) {
            return;
        }
        let sets = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        let class = usize::from(status / 100).checked_sub(1).and_then(|n| sets.classes.get(n));
        let layers = [Some(&sets.always), class, sets.statuses.get(&status)];
        for (name, value) in layers.into_iter().flatten().flatten() {
            headers.insert(name.clone(), value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wished(all: &[(&str, &str, &[&str])]) -> Wished {
        let mut out = Wished::new();
        for (class, name, values) in all {
            let values = values.iter().map(|v| (*v).to_owned()).collect();
            out.entry((*class).to_owned()).or_default().insert((*name).to_owned(), values);
        }
        out
    }

    #[test]
    fn the_closest_wins() {
        let headers = AnswerHeaders::new(
            &wished(&[
                ("default", "X-A", &["default"]),
                ("default", "Cache-Control", &["private", "max-age=1"]),
                ("4xx", "X-A", &["class"]),
                ("404", "X-A", &["status"]),
                ("2xx", "bad name", &["x"]),
            ]),
            &[("x-vault-hostname", "h".into())],
        );
        let of = |status| {
            let mut map = HeaderMap::new();
            map.insert("cache-control", HeaderValue::from_static("no-store"));
            headers.apply(status, &mut map);
            map
        };
        assert_eq!(of(200)["x-a"], "default");
        assert_eq!(of(200)["cache-control"], "private; max-age=1");
        assert_eq!(of(400)["x-a"], "class");
        assert_eq!(of(404)["x-a"], "status");
        assert_eq!(of(999)["x-vault-hostname"], "h");
        headers.replace(&Wished::new(), &[]);
        assert_eq!(of(404).len(), 1);
    }
}
