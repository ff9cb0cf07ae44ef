//! Object graphs: what decodes can be changed, and says after it what it was told.

#![no_main]

use ckptkit_codec::graph::splice::{Addition, Change, Revision, splice};
use ckptkit_codec::graph::walk::{Glob, Names, reach};
use ckptkit_codec::graph::{HAS_VALUES, decode, holders, tree};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Ok(graph) = decode(data) else {
        return;
    };
    assert_eq!(splice(data, Revision::default()).expect("it was decoded"), data);
    let (nodes, children) = (graph.flags.len(), graph.edge_child.len());
    let found = tree(&graph.edge_ends, &graph.edge_child).expect("it was decoded");
    assert_eq!(found.len(), nodes);
    let held = holders(&graph.edge_ends, &graph.edge_child, &graph.flags).expect("as above");
    assert_eq!(held.len(), nodes);
    let names = Names {
        text: graph.edge_name.data.iter().map(|&byte| u32::from(byte)).collect(),
        ends: graph
            .edge_name
            .ends
            .iter()
            .map(|&end| usize::try_from(end).expect("small"))
            .collect(),
    };
    let glob: Vec<u32> = "**/a*/?".chars().map(u32::from).collect();
    let glob = Glob::new(&glob, false);
    reach(&graph.edge_ends, &graph.edge_child, &names, &glob).expect("it was decoded");

    let text = |item| Change { item, texts: Some([None, Some(b"new".to_vec()), None]) };
    let key = |item| Change { item, texts: Some([None, None, Some(Vec::new())]) };
    let revision = Revision {
        children: (0..children).map(text).collect(),
        attributes: (0..graph.attribute_node.len()).map(key).collect(),
        slots: (0..graph.slot_variable.len()).map(|item| Change { item, texts: None }).collect(),
        additions: vec![(nodes, Addition::Child(0, b"root".to_vec()))],
        values: (0..=nodes).map(|node| (node, true)).collect(),
        nodes: 1,
    };
    let changed = decode(&splice(data, revision).expect("all is there")).expect("it was made");
    assert_eq!(changed.edge_child.len(), children + 1);
    assert_eq!(&changed.edge_child[..children], graph.edge_child);
    assert!(changed.edge_name.rows().iter().take(children).all(|name| name == b"new"));
    assert_eq!(changed.full_name, graph.full_name);
    assert!(changed.key.data.is_empty() && changed.slot_variable.is_empty());
    assert!(changed.flags.iter().all(|flags| flags & HAS_VALUES != 0));
});
