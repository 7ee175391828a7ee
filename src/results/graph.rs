//! The graph of interventions and the latents they target, for Cytoscape, Gephi, networkx (GraphML) and Graphviz (DOT).

use std::fmt::Write;

use crate::error::Result;
use crate::evaluation::interpretation::Target;
use crate::results::catalogue::ResultsFile;
use crate::results::folder::ResultsFolder;

impl ResultsFolder {
    /// Writes `graph.graphml` and `graph.dot`: a node per intervention and per latent, an edge per target.
    ///
    /// # Errors
    /// [`crate::Error::Io`] naming the file.
    pub fn write_graph(&self, interventions: &[String], trained: &[bool], l: usize, targets: &[Target]) -> Result<()> {
        self.write(ResultsFile::GraphMl, |file| {
            std::io::Write::write_all(file, graphml(interventions, trained, l, targets).as_bytes())
        })?;
        self.write(ResultsFile::GraphDot, |file| {
            std::io::Write::write_all(file, dot(interventions, l, targets).as_bytes())
        })
    }
}

/// Text with the characters that mean something in XML replaced; those that XML cannot hold become U+FFFD.
pub fn escape_xml(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push_str(&format!("&#{};", c as u32)),
            c if c < ' ' || c == '\u{fffe}' || c == '\u{ffff}' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn graphml(interventions: &[String], trained: &[bool], l: usize, targets: &[Target]) -> String {
    let with_q_values = targets.iter().any(|target| target.q_value.is_some());
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <graphml xmlns=\"http://graphml.graphdrawing.org/xmlns\">\n",
    );
    for (id, of, name, kind) in [
        ("label", "node", "label", "string"),
        ("kind", "node", "kind", "string"),
        ("trained", "node", "trained", "boolean"),
        ("probability", "edge", "probability", "double"),
        ("shift", "edge", "shift", "double"),
        ("q_value", "edge", "q_value", "double"),
    ]
    .into_iter()
    // Models that know no q-values need no key for them.
    .filter(|(id, ..)| *id != "q_value" || with_q_values)
    {
        let _ = writeln!(text, "  <key id=\"{id}\" for=\"{of}\" attr.name=\"{name}\" attr.type=\"{kind}\"/>");
    }
    text.push_str("  <graph id=\"targets\" edgedefault=\"directed\">\n");
    for (a, name) in interventions.iter().enumerate() {
        let _ = writeln!(
            text,
            "    <node id=\"i{a}\"><data key=\"label\">{}</data><data key=\"kind\">intervention</data>\
             <data key=\"trained\">{}</data></node>",
            escape_xml(name),
            trained[a]
        );
    }
    for k in 0..l {
        let _ = writeln!(
            text,
            "    <node id=\"l{k}\"><data key=\"label\">latent_{k}</data><data key=\"kind\">latent</data></node>"
        );
    }
    for Target { intervention, latent, probability, shift, q_value } in targets {
        let q_value = q_value.map_or(String::new(), |q| format!("<data key=\"q_value\">{q}</data>"));
        let _ = writeln!(
            text,
            "    <edge source=\"i{intervention}\" target=\"l{latent}\"><data key=\"probability\">{probability}</data>\
             <data key=\"shift\">{shift}</data>{q_value}</edge>"
        );
    }
    text.push_str("  </graph>\n</graphml>\n");
    text
}

/// A quoted string of DOT.
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('\r', ""))
}

/// Interventions without targets are left out: a drawing has no use for nodes without edges.
fn dot(interventions: &[String], l: usize, targets: &[Target]) -> String {
    let mut text = String::from(
        "// Interventions and the latents they target. Draw it with: dot -Tsvg graph.dot -o graph.svg\n\
         digraph targets {\n  rankdir=LR;\n  node [fontname=\"Helvetica\"];\n  edge [fontname=\"Helvetica\", fontsize=9];\n",
    );
    for (a, name) in interventions.iter().enumerate() {
        if targets.iter().any(|t| t.intervention == a) {
            let _ = writeln!(text, "  i{a} [label={}, shape=box];", quoted(name));
        }
    }
    for k in 0..l {
        if targets.iter().any(|t| t.latent == k) {
            let _ =
                writeln!(text, "  l{k} [label=\"latent {k}\", shape=ellipse, style=filled, fillcolor=\"#e8eef7\"];");
        }
    }
    for t in targets {
        // Colours that colour-blind readers tell apart: orange up, blue down; the width follows the size.
        let colour = if t.shift > 0.0 { "#d55e00" } else { "#0072b2" };
        let _ = writeln!(
            text,
            "  i{} -> l{} [label=\"{:+.2}\", color=\"{colour}\", penwidth={:.2}];",
            t.intervention,
            t.latent,
            t.shift,
            0.5 + t.shift.abs().min(8.0) / 2.0
        );
    }
    text.push_str("}\n");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: [Target; 2] = [
        Target { intervention: 0, latent: 1, probability: 0.75, shift: -2.5, q_value: None },
        Target { intervention: 1, latent: 0, probability: 1.0, shift: 4.0, q_value: None },
    ];

    fn names() -> Vec<String> {
        vec!["a \"b\" <c> & d\u{1}".into(), "ok".into(), "idle\\".into()]
    }

    #[test]
    fn graphml_holds_every_node_and_edge_with_names_escaped() {
        let text = graphml(&names(), &[true, true, false], 2, &TARGETS);
        assert_eq!(text.matches("<node ").count(), 5);
        assert_eq!(text.matches("<edge ").count(), 2);
        assert!(text.contains("a &quot;b&quot; &lt;c&gt; &amp; d\u{fffd}"), "{text}");
        assert!(text.contains("<edge source=\"i0\" target=\"l1\"><data key=\"probability\">0.75</data>"), "{text}");
        assert!(text.contains("<data key=\"trained\">false</data>"));
        assert!(!text.contains("q_value"));
        let sure = graphml(&names(), &[true, true, false], 2, &TARGETS.map(|t| Target { q_value: Some(0.25), ..t }));
        assert!(sure.contains("<key id=\"q_value\"") && sure.contains("<data key=\"q_value\">0.25</data></edge>"));
        let opened = text.matches("<data ").count();
        assert_eq!(opened, text.matches("</data>").count());
    }

    #[test]
    fn dot_leaves_out_what_has_no_edge() {
        let text = dot(&names(), 2, &TARGETS);
        assert!(text.contains("i0 [label=\"a \\\"b\\\" <c> & d") && !text.contains("idle"), "{text}");
        assert!(text.contains("i0 -> l1 [label=\"-2.50\""), "{text}");
        assert_eq!(quoted("a\\\"\n"), "\"a\\\\\\\"\\n\"");
    }
}
