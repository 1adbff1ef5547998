//! Statements and user names of database roles: an operator writes them, names and passwords are put into them.

use crate::input::Input;
use ringfence_base::Wall;
use ringfence_base::entropy::SeededEntropy;
use ringfence_engines::database::plugin::Dialect;
use ringfence_engines::database::{statement, template};

/// The first line is a value, the rest statements: whatever the value, as many statements are run as with a harmless
/// one, and each begins with the same word.
pub fn statements(data: &[u8]) {
    let mut input = Input::new(data);
    let dialect = input.pick(&[Dialect::Postgres, Dialect::Mysql]);
    let value = input.line();
    let list = statement::given(vec![input.text()]);
    let complete = |value: &str| {
        statement::complete(&list, &[("name", value), ("username", value), ("password", value)], dialect)
    };
    let (Ok(hostile), Ok(plain)) = (complete(&value), complete("x")) else { return };
    assert_eq!(hostile.len(), plain.len(), "{list:?} filled with {value:?}");
    // run through the splitter once more, as a server would read them
    let again: Vec<String> = hostile.iter().map(|s| s.expose().clone()).collect();
    let plain: Vec<String> = plain.iter().map(|s| s.expose().clone()).collect();
    let count = |l: &[String]| statement::complete(l, &[], dialect).map(|l| l.len());
    assert_eq!(count(&again), count(&plain), "{list:?} filled with {value:?}");
    statement::postgres_literal(&value);
}

/// The first line is a display name, the second a role's, the rest the template.
pub fn username(data: &[u8]) {
    let mut input = Input::new(data);
    let (display_name, role_name) = (input.line(), input.line());
    let Ok(template) = template::Template::parse(&input.text()) else { return };
    let names = template::Names { display_name: &display_name, role_name: &role_name };
    let made = |seed| template.render(&names, Wall::from_seconds(1_800_000_000), &mut SeededEntropy(seed));
    assert_eq!(made(1), made(1), "nothing but its arguments goes into a name");
}
