//! Two books of nodes, read side by side.
//!
//! Owns the walk: a large cluster has thousands of nodes, and looking each up costs more than all that is done with it.

use shared::name::NodeName;

/// Each of `nodes` with what `others` has of it; both come in the order of names.
pub(crate) fn abreast<'a, 'b, A, B>(
    nodes: impl Iterator<Item = (&'a NodeName, A)>,
    others: impl Iterator<Item = (&'b NodeName, B)>,
) -> impl Iterator<Item = (&'a NodeName, A, Option<B>)> {
    let mut others = others.peekable();
    nodes.map(move |(name, node)| {
        while others.next_if(|(other, _)| *other < name).is_some() {}
        (name, node, others.next_if(|(other, _)| *other == name).map(|(_, other)| other))
    })
}
