//! CEL expressions over whole Kubernetes objects.
//!
//! Owns what an expression may name, what it must give, and what is said when it fails: never a value of the object, which
//! may be a secret. Never knows what a result decides.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, MapExpr, StructExpr};
use cel::objects::{Key, Map, ValueType};
use cel::{Context, Env, ExecutionError, IdedExpr, Program, Value};

/// The variable that is the object.
const OBJECT: &str = "object";

/// More bytes than in any that a person can read.
const MAX_LENGTH: usize = 1_000;

/// Brackets within brackets. Parsing takes so many levels of the stack, and many times more for macros.
const MAX_BRACKETS: usize = 12;

/// Levels of the tree that an expression is parsed to, of which each takes up to 20 kB of the stack.
const MAX_DEPTH: usize = 48;

/// Expressions, ready to be evaluated.
pub struct Expressions {
    env: Arc<Env>,
    /// By their text. One that cannot be compiled gives what is wrong with it of every object.
    programs: BTreeMap<String, Result<Program, String>>,
}

impl std::fmt::Debug for Expressions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.programs.keys()).finish()
    }
}

impl Default for Expressions {
    fn default() -> Self {
        Self::new([])
    }
}

impl Expressions {
    /// Compiles these.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        let env = Arc::new(Env::stdlib());
        let programs = texts.into_iter().map(|text| (text.to_owned(), compile(&env, text)));
        Self { programs: programs.collect(), env }
    }

    /// What is wrong with an expression, on one line, as far as that can be told without an object.
    pub fn problem(text: &str) -> Option<String> {
        let env = Arc::new(Env::stdlib());
        let program = match compile(&env, text) {
            Ok(program) => program,
            Err(problem) => return Some(problem),
        };
        let empty = Value::Map(Map { map: Arc::default() });
        match run(&env, &program, &empty) {
            Ok(Value::Bool(_)) => None,
            Ok(other) => Some(no_bool(&other)),
            // An undeclared name is one of any object; what else fails may be there.
            Err(error @ ExecutionError::UndeclaredReference(_)) => Some(explain(text, &error)),
            Err(_) => None,
        }
    }

    /// Whether there is nothing to evaluate.
    pub fn is_empty(&self) -> bool {
        self.programs.is_empty()
    }

    /// Whether everything that `others` evaluates is evaluated here too.
    pub fn cover(&self, others: &Self) -> bool {
        others.programs.keys().all(|text| self.programs.contains_key(text))
    }

    /// The texts.
    pub fn texts(&self) -> BTreeSet<String> {
        self.programs.keys().cloned().collect()
    }

    /// What each says of an object, or why it says nothing.
    pub fn evaluate(&self, object: &serde_json::Value) -> BTreeMap<String, Result<bool, String>> {
        if self.programs.is_empty() {
            return BTreeMap::new();
        }
        let object = value(object);
        let said = |(text, program): (&String, &Result<Program, String>)| {
            let result =
                program.as_ref().map_err(Clone::clone).and_then(|program| match run(&self.env, program, &object) {
                    Ok(Value::Bool(said)) => Ok(said),
                    Ok(other) => Err(no_bool(&other)),
                    Err(error) => Err(explain(text, &error)),
                });
            (text.clone(), result)
        };
        self.programs.iter().map(said).collect()
    }
}

fn compile(env: &Env, text: &str) -> Result<Program, String> {
    if text.trim().is_empty() {
        return Err("is empty".to_owned());
    }
    if text.len() > MAX_LENGTH {
        return Err(format!("has {} bytes; at most {MAX_LENGTH} are taken", text.len()));
    }
    if brackets(text) > MAX_BRACKETS {
        return Err(format!("has more than {MAX_BRACKETS} brackets within one another"));
    }
    let program = env.compile(text).map_err(|errors| match errors.errors.first() {
        Some(error) => {
            let text = error.msg.lines().next().unwrap_or_default();
            format!("is no CEL: line {}, column {}: {text}", error.pos.0, error.pos.1)
        }
        None => "is no CEL".to_owned(),
    })?;
    if depth(program.expression()) > MAX_DEPTH {
        return Err("is too long a chain of operators, calls or fields; split it into several rules".to_owned());
    }
    Ok(program)
}

/// How deep brackets stand in one another; in strings too, which errs on the safe side.
fn brackets(text: &str) -> usize {
    let depths = text.chars().scan(0_usize, |depth, c| {
        match c {
            '(' | '[' | '{' | '?' => *depth += 1,
            ')' | ']' | '}' => *depth = depth.saturating_sub(1),
            _ => {}
        }
        Some(*depth)
    });
    depths.max().unwrap_or_default()
}

/// How many levels a tree has, found without recursion.
fn depth(root: &IdedExpr) -> usize {
    let mut todo = vec![(root, 1)];
    let mut deepest = 0;
    while let Some((at, level)) = todo.pop() {
        deepest = deepest.max(level);
        todo.extend(children(&at.expr).into_iter().map(|child| (child, level + 1)));
    }
    deepest
}

fn children(expr: &Expr) -> Vec<&IdedExpr> {
    match expr {
        Expr::Unspecified | Expr::Ident(_) | Expr::Literal(_) => Vec::new(),
        Expr::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Expr::List(list) => list.elements.iter().collect(),
        Expr::Select(select) => vec![&select.operand],
        Expr::Map(MapExpr { entries }) | Expr::Struct(StructExpr { entries, .. }) => {
            entries.iter().flat_map(|entry| values(&entry.expr)).flatten().collect()
        }
        Expr::Comprehension(it) => vec![&it.iter_range, &it.accu_init, &it.loop_cond, &it.loop_step, &it.result],
    }
}

fn values(entry: &EntryExpr) -> [Option<&IdedExpr>; 2] {
    match entry {
        EntryExpr::StructField(field) => [Some(&field.value), None],
        EntryExpr::MapEntry(entry) => [Some(&entry.key), Some(&entry.value)],
    }
}

/// A mistake of the interpreter on one object must not end the process.
fn run(env: &Arc<Env>, program: &Program, object: &Value) -> Result<Value, ExecutionError> {
    let evaluated = catch_unwind(AssertUnwindSafe(|| {
        let mut context = Context::with_env(Arc::clone(env));
        context.add_variable_from_value(OBJECT, object.clone());
        program.execute(&context)
    }));
    evaluated.unwrap_or_else(|_| Err(ExecutionError::InternalError(String::new())))
}

fn no_bool(value: &Value) -> String {
    format!("gives {}, not true or false", type_name(value.type_of()))
}

fn type_name(kind: ValueType) -> &'static str {
    match kind {
        ValueType::List => "a list",
        ValueType::Map | ValueType::Struct => "a map",
        ValueType::Int | ValueType::UInt | ValueType::Float => "a number",
        ValueType::String => "a string",
        ValueType::Null => "null",
        _ => "something else",
    }
}

/// The errors of the interpreter quote values. What is said here are words of the expression, and types.
fn explain(text: &str, error: &ExecutionError) -> String {
    let own = |word: &str| text.contains(word) && !word.is_empty();
    match error {
        ExecutionError::NoSuchKey(key) if own(key) => format!("no such key: {key}"),
        ExecutionError::NoSuchKey(_) => "no such key".to_owned(),
        ExecutionError::UndeclaredReference(name) if own(name) => {
            format!("there is no `{name}`; the variable is `{OBJECT}`")
        }
        ExecutionError::NoSuchOverload(overload) if own(overload.function()) => {
            format!("`{}` does not take {}", overload.function(), overload.argument_types().join(", "))
        }
        ExecutionError::FunctionError { function, .. } if own(function) => format!("`{function}` fails"),
        ExecutionError::NoSuchOverload(_)
        | ExecutionError::UnexpectedType { .. }
        | ExecutionError::ValuesNotComparable(..)
        | ExecutionError::UnsupportedBinaryOperator(..)
        | ExecutionError::UnsupportedTargetType { .. }
        | ExecutionError::UnsupportedIndex(..)
        | ExecutionError::UnsupportedKeyType(_) => "a value is of another type than the expression needs".to_owned(),
        ExecutionError::IndexOutOfBounds(_) => "an index is out of bounds".to_owned(),
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => "a division by zero".to_owned(),
        ExecutionError::Overflow(..) => "a number is too large".to_owned(),
        ExecutionError::InvalidArgumentCount { .. } | ExecutionError::MissingArgumentOrTarget => {
            "a function has too few arguments, or too many".to_owned()
        }
        _ => "it cannot be evaluated".to_owned(),
    }
}

/// Whole numbers are `int`, as Kubernetes has them.
fn value(json: &serde_json::Value) -> Value {
    match json {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(it) => Value::Bool(*it),
        serde_json::Value::Number(it) => {
            it.as_i64().map_or_else(|| Value::Float(it.as_f64().unwrap_or(f64::NAN)), Value::Int)
        }
        serde_json::Value::String(it) => Value::String(Arc::new(it.clone())),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(value).collect())),
        serde_json::Value::Object(fields) => {
            let fields = fields.iter().map(|(key, it)| (Key::String(Arc::new(key.clone())), value(it)));
            Value::Map(Map { map: Arc::new(fields.collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use serde_json::{Value as Json, json};

    use super::*;

    fn deployment() -> Json {
        json!({
            "kind": "Deployment",
            "metadata": { "name": "web", "namespace": "shop", "labels": { "app.kubernetes.io/name": "web" }, "generation": 3 },
            "spec": {
                "replicas": 2,
                "paused": false,
                "template": { "spec": {
                    "containers": [{ "name": "app", "image": "quay.io/team/app:1", "env": [{ "name": "TOKEN", "value": "hunter2" }] }],
                } },
            },
        })
    }

    fn said(text: &str) -> Result<bool, String> {
        Expressions::new([text]).evaluate(&deployment()).remove(text).unwrap()
    }

    #[rstest]
    #[case::number("object.spec.replicas > 1", true)]
    #[case::whole_numbers_are_int("object.spec.replicas - 3 < 0 && object.metadata.generation == 3", true)]
    #[case::string("object.metadata.name.startsWith('we')", true)]
    #[case::regex("object.metadata.name.matches('^w.b$')", true)]
    #[case::map_key("object.metadata.labels['app.kubernetes.io/name'] == 'web'", true)]
    #[case::has("has(object.spec.strategy)", false)]
    #[case::has_and("has(object.spec.paused) && !object.spec.paused", true)]
    #[case::in_a_map("'app.kubernetes.io/name' in object.metadata.labels", true)]
    #[case::exists("object.spec.template.spec.containers.exists(c, c.image.startsWith('quay.io/'))", true)]
    #[case::all("object.spec.template.spec.containers.all(c, has(c.resources))", false)]
    #[case::size("size(object.spec.template.spec.containers) == 1", true)]
    #[case::in_a_list("object.kind in ['Deployment', 'StatefulSet']", true)]
    #[case::short_circuit("object.kind == 'Deployment' || object.spec.nothing", true)]
    fn an_expression_is_asked_of_the_whole_object(#[case] text: &str, #[case] expected: bool) {
        assert_eq!(Expressions::problem(text), None);
        assert_eq!(said(text), Ok(expected));
    }

    #[rstest]
    #[case::key("object.spec.strategy.type == 'x'", "no such key: strategy")]
    #[case::type_of_value("object.spec.replicas + 'x' == 'y'", "a value is of another type than the expression needs")]
    #[case::no_bool("object.spec.replicas", "gives a number, not true or false")]
    #[case::index("object.spec.template.spec.containers[5].name == 'x'", "an index is out of bounds")]
    #[case::zero("object.spec.replicas / 0 == 1", "a division by zero")]
    #[case::secret("object.spec.template.spec.containers[0].env[0].value > 5", "")]
    #[case::secret_key("object.spec[object.spec.template.spec.containers[0].env[0].value] == 1", "no such key")]
    #[case::secret_called("object.spec.template.spec.containers[0].env[0].value.foo()", "")]
    #[case::secret_given("object.spec.template.spec.containers[0].env[0].value", "gives a string")]
    #[case::bad_regex("object.metadata.name.matches(object.spec.template.spec.containers[0].env[0].value + '(')", "")]
    #[case::number_of("int(object.spec.template.spec.containers[0].env[0].value) > 5", "")]
    fn an_expression_that_fails_says_why_and_never_quotes_the_object(#[case] text: &str, #[case] why: &str) {
        let problem = said(text).unwrap_err();
        assert!(problem.contains(why) && !problem.is_empty(), "{problem}");
        assert!(!problem.contains("hunter2") && !problem.contains('\n'), "{problem}");
    }

    #[rstest]
    #[case::empty(" ", "is empty")]
    #[case::no_cel("object.spec.", "is no CEL: line 1, column ")]
    #[case::variable("workload.spec.replicas > 1", "there is no `workload`; the variable is `object`")]
    #[case::function("frobnicate(object)", "there is no `frobnicate`")]
    #[case::no_bool("'yes'", "gives a string, not true or false")]
    #[case::number("1 + 1", "gives a number, not true or false")]
    fn what_no_object_could_mend_is_found_without_one(#[case] text: &str, #[case] problem: &str) {
        let found = Expressions::problem(text).unwrap();
        assert!(found.contains(problem) && !found.contains('\n'), "{found}");
        assert!(said(text).is_err());
    }

    #[rstest]
    #[case::sum("1", "+1", "> 0", 1_000)]
    #[case::not("", "!", "true", 1_000)]
    #[case::minus("", "-", "1 > 0", 1_000)]
    #[case::and("true", "&&true", "", 1_000)]
    #[case::select("object", ".a", "", 1_000)]
    #[case::index("object", "[0]", "", 1_000)]
    #[case::call("object", ".f()", "", 1_000)]
    #[case::within("", "1 in ", "[1]", 1_000)]
    #[case::choice("", "true?true:", "false", 1_000)]
    #[case::parens("", "(", "true", 1_000)]
    #[case::lists("", "[", "", 1_000)]
    #[case::macros("", "[1].all(a,", "true", 1_000)]
    #[case::maps("", "{1:", "", 1_000)]
    fn no_expression_overflows_the_stack(
        #[case] start: &str,
        #[case] link: &str,
        #[case] end: &str,
        #[case] most: usize,
    ) {
        for links in 1..most / link.len() {
            let closing: String = link
                .chars()
                .rev()
                .filter_map(|c| match c {
                    '(' if !link.contains(')') => Some(')'),
                    '[' if !link.contains(']') => Some(']'),
                    '{' => Some('}'),
                    _ => None,
                })
                .collect();
            let text = format!("{start}{}{end}{}", link.repeat(links), closing.repeat(links));
            // As large as the stack of a worker.
            let thread = std::thread::Builder::new().stack_size(2 << 20);
            let found = thread.spawn(move || (Expressions::problem(&text), said(&text))).unwrap().join().unwrap();
            if found.0.is_some() && links > 100 {
                return;
            }
        }
    }

    #[test]
    fn one_that_is_too_long_is_refused() {
        let long = format!("object.a == '{}'", "x".repeat(MAX_LENGTH));
        assert!(Expressions::problem(&long).unwrap().contains("at most 1000"));
    }
}
