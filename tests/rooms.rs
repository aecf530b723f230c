//! The modules of the crate depend on each other in one direction: a room (a folder or file in `src`) uses the rooms
//! below it, never one above.
//!
//! Reads the sources without their tests and comments, and looks at every path that begins with `crate::` or `super::`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// From top to bottom. Rooms on one floor may use each other, but not in a circle.
///
/// A room that is split over several floors is named by its parts; its `mod.rs` only exports them. `lib.rs` is above all
/// floors, and every other file directly in `src` is on the ground floor.
const FLOORS: &[&[&str]] = &[
    &["guide"],
    &["testing"],
    &["provider"],
    &["middleware::reqwest"],
    &["middleware::bearer"],
    &[
        "middleware::add_token",
        "middleware::inspect_body",
        "middleware::reject_on_trailers",
        "middleware::retry",
    ],
    &["middleware::drain", "middleware::sending"],
    &["middleware::extensions"],
    &["login"],
    &["sessions"],
    &["cache"],
    &["events"],
    &["source"],
    &["grant"],
    &["oauth"],
    &["token_source"],
    &["store"],
    &["body"],
    &["challenge"],
];

#[test]
fn every_room_uses_only_rooms_below_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut sources = Sources::default();
    sources.read(&src, &[]);
    let problems = sources.problems();
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

/// A path like `["crate", "store", "TokenStore"]`, without its `crate`.
type ModulePath = Vec<String>;

#[derive(Default)]
struct Sources {
    /// The paths that each module uses.
    uses: BTreeMap<ModulePath, Vec<ModulePath>>,
    /// The files directly in `src`. They are on the ground floor, with what is in folders of the same names.
    ground: BTreeSet<String>,
}

impl Sources {
    fn read(&mut self, folder: &Path, module: &[String]) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut inner = module.to_vec();
            if name == "tests" {
                continue;
            }
            if path.is_dir() {
                inner.push(name);
                self.read(&path, &inner);
            } else if path.extension().is_some_and(|it| it == "rs") {
                if name != "mod" && name != "lib" {
                    if module.is_empty() {
                        self.ground.insert(name.clone());
                    }
                    inner.push(name);
                }
                self.add(inner, &fs::read_to_string(&path).unwrap());
            }
        }
    }

    fn add(&mut self, module: ModulePath, text: &str) {
        let uses = paths(&module, text);
        self.uses.entry(module).or_default().extend(uses);
    }

    /// The room that a path leads to, and its floor. `None` for a path to `lib.rs` itself, or to something unknown.
    fn room(&self, path: &[String]) -> Option<(String, usize)> {
        let first = path.first()?;
        for length in (1..=path.len().min(2)).rev() {
            let room = path[..length].join("::");
            if let Some(floor) = FLOORS.iter().position(|it| it.contains(&&*room)) {
                return Some((room, floor));
            }
        }
        if is_split(first) || !self.uses.contains_key(&path[..1]) {
            // An item that `lib.rs` or the `mod.rs` of a split room exports.
            let facade = usize::from(is_split(first));
            let name = path.get(facade)?;
            let exports = self.uses.get(&path[..facade])?;
            let target = exports
                .iter()
                .find(|it| it.len() > facade + 1 && it.last() == Some(name))?;
            return self.room(target);
        }
        let is_ground = self.ground.contains(first);
        is_ground.then(|| (first.clone(), FLOORS.len()))
    }

    fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        let mut same_floor = BTreeMap::<String, BTreeSet<String>>::new();
        for (module, paths) in &self.uses {
            let is_facade = module.is_empty() || (module.len() == 1 && is_split(&module[0]));
            if is_facade {
                continue;
            }
            let name = module.join("::");
            let Some((room, floor)) = self.room(module) else {
                problems.push(format!("`{name}` is on no floor: add it to FLOORS"));
                continue;
            };
            for path in paths.iter().filter(|path| !path.is_empty()) {
                let text = path.join("::");
                let Some((used, used_floor)) = self.room(path) else {
                    problems.push(format!("{name}: cannot tell the room of `crate::{text}`"));
                    continue;
                };
                if used_floor < floor {
                    problems.push(format!(
                        "{name} uses `crate::{text}`, but `{used}` is above `{room}`"
                    ));
                } else if used_floor == floor && used != room {
                    same_floor.entry(room.clone()).or_default().insert(used);
                }
            }
        }
        for room in same_floor.keys() {
            if let Some(circle) = circle(&same_floor, &mut vec![room]) {
                problems.push(format!("rooms on one floor use each other: {circle}"));
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }
}

fn is_split(room: &str) -> bool {
    let inside = format!("{room}::");
    FLOORS
        .iter()
        .flat_map(|it| *it)
        .any(|it| it.starts_with(&inside))
}

/// A way from the first room back to it, if its rooms come in an order that begins with the least.
fn circle<'a>(
    uses: &'a BTreeMap<String, BTreeSet<String>>,
    way: &mut Vec<&'a String>,
) -> Option<String> {
    for next in uses.get(way[way.len() - 1])? {
        if next == way[0] {
            let names: Vec<_> = way.iter().map(|room| format!("`{room}`")).collect();
            return Some(format!("{} -> `{next}`", names.join(" -> ")));
        }
        if next > way[0] && !way.contains(&next) {
            way.push(next);
            let found = circle(uses, way);
            way.pop();
            if found.is_some() {
                return found;
            }
        }
    }
    None
}

/// All paths in the text of `module` that begin with `crate`, `self` or `super`, without those in tests.
fn paths(module: &[String], text: &str) -> Vec<ModulePath> {
    let tokens = without_tests(&tokens(text));
    let mut paths = Vec::new();
    // The module, with the inline modules around the token; and for each `{`, whether it began one.
    let mut module = module.to_vec();
    let mut braces = Vec::new();
    let mut next = 0;
    while next < tokens.len() {
        match &*tokens[next] {
            "mod" if tokens.get(next + 2).is_some_and(|it| it == "{") => {
                module.push(tokens[next + 1].clone());
                braces.push(true);
                next += 3;
            }
            "{" => {
                braces.push(false);
                next += 1;
            }
            "}" => {
                if braces.pop() == Some(true) {
                    module.pop();
                }
                next += 1;
            }
            "crate" | "self" | "super" if tokens.get(next + 1).is_some_and(|it| it == "::") => {
                let mut found = Vec::new();
                next = tree(&tokens, next, &mut Vec::new(), &mut found);
                paths.extend(found.iter().map(|path| absolute(&module, path)));
            }
            _ => next += 1,
        }
    }
    paths
}

/// Reads a path or a tree of them, such as `crate::{a::B, c::{D, E as F}}`, and returns where it ends.
fn tree(
    tokens: &[String],
    mut next: usize,
    prefix: &mut ModulePath,
    found: &mut Vec<ModulePath>,
) -> usize {
    let before = prefix.len();
    while let Some(token) = tokens.get(next) {
        if token == "{" {
            next += 1;
            while tokens[next] != "}" {
                next = tree(tokens, next, prefix, found);
                while tokens[next] != "," && tokens[next] != "}" {
                    // An `as` and its name.
                    next += 1;
                }
                if tokens[next] == "," {
                    next += 1;
                }
            }
            next += 1;
            break;
        }
        prefix.push(token.clone());
        next += 1;
        if tokens.get(next).is_some_and(|it| it == "::")
            && tokens
                .get(next + 1)
                .is_some_and(|it| it == "{" || is_word(it) || it == "*")
        {
            next += 1;
        } else {
            found.push(prefix.clone());
            break;
        }
    }
    prefix.truncate(before);
    next
}

fn absolute(module: &[String], path: &[String]) -> ModulePath {
    let mut base = module.to_vec();
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        match &**first {
            "crate" => base.clear(),
            "super" => {
                base.pop();
            }
            "self" => {}
            _ => break,
        }
        rest = after;
    }
    let names = rest.iter().filter(|it| *it != "self" && *it != "*");
    base.into_iter().chain(names.cloned()).collect()
}

/// Removes each item below `#[cfg(test)]` or `#[cfg(all(test, ...))]`.
fn without_tests(tokens: &[String]) -> Vec<String> {
    let is_cfg_test = |tokens: &[String]| {
        let text: String = tokens.iter().take(7).map(String::as_str).collect();
        text.starts_with("#[cfg(test)") || text.starts_with("#[cfg(all(test")
    };
    let mut kept = Vec::new();
    let mut next = 0;
    while next < tokens.len() {
        if !is_cfg_test(&tokens[next..]) {
            kept.push(tokens[next].clone());
            next += 1;
            continue;
        }
        let mut depth = 0_usize;
        while let Some(token) = tokens.get(next) {
            next += 1;
            match &**token {
                "{" => depth += 1,
                "}" if depth == 1 => break,
                "}" => depth -= 1,
                ";" if depth == 0 => break,
                _ => {}
            }
        }
        // `use a::{b, c};`: the end is the semicolon.
        if tokens.get(next).is_some_and(|it| it == ";") {
            next += 1;
        }
    }
    kept
}

fn is_word(token: &str) -> bool {
    token.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// Words, `::` and single signs, without comments and literals.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("r#\"") || rest.starts_with("br#\"") {
            rest.find("\"#").map_or(rest.len(), |end| end + 2)
        } else if c == '"' {
            string(rest)
        } else if c == '\'' {
            character(rest)
        } else if c.is_alphanumeric() || c == '_' {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
            end.unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            c.len_utf8()
        };
        let token = &rest[..length];
        let is_literal = token.len() > 1 && !is_word(token) && token != "::";
        if !c.is_whitespace() && !is_literal && !token.contains('"') {
            tokens.push(token.to_owned());
        }
        rest = &rest[length..];
    }
    tokens
}

/// The length of the string literal at the beginning.
fn string(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}

/// The length of the character literal at the beginning, or 1 for the sign of a lifetime.
fn character(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match (chars.next(), chars.next()) {
        (Some((_, '\\')), Some((at, c))) => {
            let after = at + c.len_utf8();
            text[after..].find('\'').map_or(1, |end| after + end + 1)
        }
        (Some(_), Some((at, '\''))) => at + 1,
        _ => 1,
    }
}

fn words(path: &str) -> ModulePath {
    path.split("::").map(String::from).collect()
}

fn found(module: &str, text: &str) -> Vec<String> {
    let paths = paths(&words(module), text);
    paths.iter().map(|path| path.join("::")).collect()
}

#[test]
fn the_parser_finds_trees_of_paths_and_paths_in_code() {
    let text = "
        use crate::{clock::Now, store::{self, Lease as L}, token::*};
        fn f<'a>(x: &'a crate::error::TokenError, c: char) -> Vec<super::state::State> {
            crate::cache::Wait::<u8>::new(c == '{' || c == '\\'', self::g())
        }
        macro_rules! m { () => { $crate::schedule::Schedule } }
    ";
    let expected = [
        "clock::Now",
        "store",
        "store::Lease",
        "token",
        "error::TokenError",
        "cache::state::State",
        "cache::Wait",
        "cache::wait::g",
        "schedule::Schedule",
    ];
    assert_eq!(found("cache::wait", text), expected);
}

#[test]
fn the_parser_ignores_comments_literals_and_tests() {
    let text = r#"
        //! See [`x`](crate::testing::x).
        /// [`y`](crate::testing::y)
        const A: &str = "crate::testing::z \" crate::testing::z";
        /* crate::testing::z */
        #[cfg(test)]
        use crate::testing::{a, b};
        #[cfg(all(test, feature = "testing"))]
        mod tests {
            use super::*;
            fn f() { crate::testing::c(); }
        }
        mod inner { use super::super::token::Token; }
        use super::issued;
    "#;
    assert_eq!(
        found("cache::wait", text),
        ["cache::token::Token", "cache::issued"]
    );
}

#[test]
fn an_arrow_upwards_and_a_circle_are_reported() {
    let mut sources = Sources {
        ground: BTreeSet::from(["clock", "token"].map(String::from)),
        ..Sources::default()
    };
    sources.add(
        Vec::new(),
        "pub use self::{middleware::Drain, token::Token};",
    );
    sources.add(words("middleware"), "pub use self::drain::Drain;");
    sources.add(
        words("middleware::drain"),
        "use super::bearer::Attempt; use crate::Token;",
    );
    sources.add(words("cache::state"), "use crate::Drain;");
    sources.add(words("clock"), "use crate::token::Token;");
    sources.add(words("token"), "use crate::clock::Now;");
    let expected = [
        "cache::state uses `crate::Drain`, but `middleware::drain` is above `cache`",
        "middleware::drain uses `crate::middleware::bearer::Attempt`, but `middleware::bearer` is above \
         `middleware::drain`",
        "rooms on one floor use each other: `clock` -> `token` -> `clock`",
    ];
    assert_eq!(sources.problems(), expected);
}
