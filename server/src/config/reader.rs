//! Typed reading of one block, with a record of what was asked for, so that what nobody asked for can be told.
//!
//! Values are taken leniently, as operators write them: a number or a boolean may stand in quotes, a list may be one text
//! with commas.

use super::ast::{Body, Item, Value};
use super::units;
use super::{ConfigError, Place};
use ringfence_base::duration;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;

/// A block while it is read.
pub struct Reader<'a> {
    body: &'a Body,
    file: &'a str,
    /// What stands in errors in front of a key: `listener "tcp"`.
    title: String,
    /// The block's own place, for what it lacks.
    place: Place,
    asked: RefCell<Vec<&'static str>>,
}

impl<'a> Reader<'a> {
    /// The reader of a whole file.
    pub fn of_file(file: &'a str, body: &'a Body) -> Self {
        let place = Place { file: file.to_owned(), line: 1, column: 1 };
        Reader { body, file, title: String::new(), place, asked: RefCell::new(Vec::new()) }
    }

    fn of_block(file: &'a str, title: String, item: &Item, body: &'a Body) -> Self {
        Reader { body, file, title, place: place_of(file, item), asked: RefCell::new(Vec::new()) }
    }

    /// Where the block begins.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// An error about the block.
    pub fn refuse(&self, message: impl Into<String>) -> ConfigError {
        let message = message.into();
        let message = if self.title.is_empty() { message } else { format!("{}: {message}", self.title) };
        ConfigError::Value { place: self.place.clone(), message }
    }

    /// The last item of this name that is no labelled block.
    fn item(&self, name: &'static str) -> Option<&'a Item> {
        self.asked.borrow_mut().push(name);
        self.body.items.iter().rfind(|item| item.keys.len() == 1 && item.keys[0] == name)
    }

    fn wrong(&self, item: &Item, expected: &str) -> ConfigError {
        let title = if self.title.is_empty() { String::new() } else { format!("{}: ", self.title) };
        let message = format!("{title}{} must be {expected}", item.keys[0]);
        ConfigError::Value { place: place_of(self.file, item), message }
    }

    fn scalar<T>(
        &self,
        name: &'static str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(item) = self.item(name) else { return Ok(None) };
        let text = item.value.scalar().ok_or_else(|| self.wrong(item, expected))?;
        read(text.trim()).map(Some).ok_or_else(|| self.wrong(item, expected))
    }

    /// A text.
    pub fn text(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        self.scalar(name, "a text", |text| Some(text.to_owned()))
    }

    /// A text other than the empty one.
    pub fn filled(&self, name: &'static str) -> Result<Option<String>, ConfigError> {
        Ok(self.text(name)?.filter(|text| !text.is_empty()))
    }

    /// A boolean: `true`, `"true"`, `1`.
    pub fn yes(&self, name: &'static str) -> Result<Option<bool>, ConfigError> {
        self.scalar(name, "true or false", |text| match text {
            "" => Some(false),
            text => units::boolean(text),
        })
    }

    /// A whole number.
    pub fn count(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        self.scalar(name, "a whole number", |text| text.parse().ok())
    }

    /// A whole number that may be negative.
    pub fn integer(&self, name: &'static str) -> Result<Option<i64>, ConfigError> {
        self.scalar(name, "a whole number", |text| text.parse().ok())
    }

    /// A size: a number of bytes or `32MiB`.
    pub fn bytes(&self, name: &'static str) -> Result<Option<u64>, ConfigError> {
        self.scalar(name, "a size in bytes, or with a unit such as 32MiB", units::capacity_bytes)
    }

    /// A duration: seconds or `90s`.
    pub fn time(&self, name: &'static str) -> Result<Option<Duration>, ConfigError> {
        self.scalar(name, "a duration: seconds, or with a unit such as 90s", |text| {
            u64::try_from(duration::parse_ns(text)?).ok().map(Duration::from_nanos)
        })
    }

    /// A list of texts; one text is split at commas.
    pub fn texts(&self, name: &'static str) -> Result<Option<Vec<String>>, ConfigError> {
        let Some(item) = self.item(name) else { return Ok(None) };
        let wrong = || self.wrong(item, "a list of texts");
        match &item.value {
            Value::List(values) => values
                .iter()
                .map(|value| value.scalar().map(str::to_owned).ok_or_else(wrong))
                .collect::<Result<_, _>>()
                .map(Some),
            value => {
                let text = value.scalar().ok_or_else(wrong)?;
                let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
                Ok(Some(parts.map(str::to_owned).collect()))
            }
        }
    }

    /// A map of texts.
    pub fn map(&self, name: &'static str) -> Result<BTreeMap<String, String>, ConfigError> {
        let mut map = BTreeMap::new();
        for block in self.blocks(name, 0)? {
            for item in &block.reader.body.items {
                let text = item.value.scalar().ok_or_else(|| self.wrong(item, "a text"))?;
                map.insert(item.keys[0].clone(), text.to_owned());
            }
        }
        Ok(map)
    }

    /// All the block's own values as texts, lists joined by commas. Nested blocks are left out.
    pub fn all_texts(&self) -> BTreeMap<String, String> {
        let mut map = BTreeMap::new();
        for item in self.body.items.iter().filter(|item| item.keys.len() == 1) {
            let text = match &item.value {
                Value::List(values) if values.iter().all(|value| value.scalar().is_some()) => {
                    values.iter().filter_map(Value::scalar).collect::<Vec<_>>().join(",")
                }
                value => match value.scalar() {
                    Some(text) => text.to_owned(),
                    None => continue,
                },
            };
            map.insert(item.keys[0].clone(), text);
        }
        map
    }

    /// The items themselves, for blocks whose keys are data.
    pub fn items(&self) -> &'a [Item] {
        &self.body.items
    }

    /// Marks keys as known without reading them.
    pub fn know(&self, names: &[&'static str]) {
        self.asked.borrow_mut().extend(names);
    }

    /// Blocks of this name with so many labels. Labels may be written as labels, as keys of nested objects, or as a list of
    /// such objects: the three forms in which JSON and HCL say the same.
    pub fn blocks(&self, name: &'static str, labels: usize) -> Result<Vec<Block<'a>>, ConfigError> {
        self.asked.borrow_mut().push(name);
        let mut found = Vec::new();
        for item in self.body.items.iter().filter(|item| item.keys[0] == name) {
            self.collect(name, item, item.keys[1..].to_vec(), &item.value, labels, &mut found)?;
        }
        Ok(found)
    }

    fn collect(
        &self,
        name: &str,
        item: &'a Item,
        labels: Vec<String>,
        value: &'a Value,
        wanted: usize,
        found: &mut Vec<Block<'a>>,
    ) -> Result<(), ConfigError> {
        let refuse = |message: String| ConfigError::Value { place: place_of(self.file, item), message };
        match value {
            Value::List(values) => {
                values.iter().try_for_each(|value| self.collect(name, item, labels.clone(), value, wanted, found))
            }
            Value::Object(body) if labels.len() == wanted => {
                let quoted: Vec<String> = labels.iter().map(|label| format!(" {label:?}")).collect();
                let title = format!("{name}{}", quoted.concat());
                found.push(Block { reader: Reader::of_block(self.file, title, item, body), labels });
                Ok(())
            }
            Value::Object(body) if labels.len() < wanted => body.items.iter().try_for_each(|inner| {
                let deeper = labels.iter().chain(&inner.keys).cloned().collect();
                self.collect(name, inner, deeper, &inner.value, wanted, found)
            }),
            Value::Object(_) => Err(refuse(format!("{name} takes {wanted} label(s)"))),
            _ => Err(refuse(format!("{name} must be a block"))),
        }
    }

    /// Warns of every key that nobody asked for.
    pub fn finish(&self, warnings: &mut Vec<String>) {
        let asked = self.asked.borrow();
        for item in self.body.items.iter().filter(|item| !asked.contains(&item.keys[0].as_str())) {
            warnings.push(format!(
                "unknown or unsupported field {} found in configuration at {}",
                item.keys[0],
                place_of(self.file, item)
            ));
        }
    }
}

/// A block with its labels.
pub struct Block<'a> {
    /// As many as were asked for.
    pub labels: Vec<String>,
    /// Its inside.
    pub reader: Reader<'a>,
}

fn place_of(file: &str, item: &Item) -> Place {
    Place { file: file.to_owned(), line: item.line, column: item.column }
}
