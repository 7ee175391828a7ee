#!/usr/bin/env python3
"""Writes the small files of tests/formats with the tools that people use.

Usage: make_fixtures.py FOLDER [KIND ...]
(KIND: anndata, tenx, matrix_market, tables, npz, variable_genes, public, containers; default: all)

Run it once per version of AnnData, with KIND `anndata`, and once with a current scanpy for the rest: the names of AnnData
files carry its version, and FOLDER/versions.json records what wrote each file. Every file holds the same screen: 12
cells, 9 genes, the counts below, so that the tests compare all of them with one table.
"""

import gzip
import json
import platform
import shutil
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import scipy.io
import scipy.sparse as sp

N_CELLS, N_GENES = 12, 9


def counts():
    """Count of cell n and gene g: sparse, and different everywhere."""
    n, g = np.meshgrid(np.arange(N_CELLS), np.arange(N_GENES), indexing="ij")
    x = (7 * n + 5 * g * g + n * g) % 11
    x[(n + 2 * g) % 3 == 0] = 0
    x[3, 4] = 70000 % 65536 + 200  # 4664: more than a byte
    return x.astype(np.int64)


LABELS = ["control", "TP53", "KLF1", "control", "TP53", "KLF1", "control", "TP53", "KLF1", "control", "TP53", "KLF1"]
BARCODES = ["AAAC%s-%d" % (c, 1 + (n >= 6)) for n, c in enumerate("ACGTACGTACGT")]
BARCODES = [b[:4] + "ACGT"[n % 4] + "ACGT"[n // 4] + b[5:] for n, b in enumerate(BARCODES)]
GENES = ["GENE%d" % g for g in range(N_GENES)]
GENES[8] = "GENE2"  # symbols are not unique in practice
IDS = ["ENSG%05d" % g for g in range(N_GENES)]


def record(folder, names, **packages):
    path = folder / "versions.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    for name in names:
        known[name] = dict(python=platform.python_version(), **packages)
    path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")


def make_anndata(folder):
    import anndata
    import h5py

    version = anndata.__version__
    short = "_".join(version.split(".")[:2])
    old = tuple(int(p) for p in version.split(".")[:2]) < (0, 7)
    obs = pd.DataFrame(index=BARCODES)
    obs["perturbation"] = pd.Categorical(LABELS, categories=["KLF1", "TP53", "control"])
    obs["batch"] = ["b%d" % (n % 2) for n in range(N_CELLS)]
    obs["lane"] = np.arange(N_CELLS, dtype="int32") % 4
    obs["passed"] = np.arange(N_CELLS) % 3 == 0
    obs["ncounts"] = np.arange(N_CELLS, dtype="float32") + 0.5
    var = pd.DataFrame({"gene_ids": IDS}, index=["GENE%d" % g for g in range(N_GENES)])
    x = counts()
    written = []

    def write(name, a, **options):
        path = folder / ("anndata%s_%s.h5ad" % (short, name))
        a.write_h5ad(path, **options) if hasattr(a, "write_h5ad") else a.write(path, **options)
        written.append(path.name)

    def adata(matrix, **parts):
        return anndata.AnnData(matrix, obs=obs.copy(), var=var.copy(), **parts)

    write("csr_f32", adata(sp.csr_matrix(x.astype("float32"))))
    write("dense_f32", adata(x.astype("float32")), compression="gzip")
    if not old:
        write("csc_i32", adata(sp.csc_matrix(x.astype("int32"))))
        write("csr_lzf_u16", adata(sp.csr_matrix(x.astype("uint16"))), compression="lzf")
        write("csc_gzip_i64", adata(sp.csc_matrix(x)), compression="gzip")
        write("dense_lzf_f64", adata(x.astype("float64")), compression="lzf")
        logged = adata(sp.csr_matrix(np.log1p(x).astype("float32")))
        logged.layers["counts"] = sp.csc_matrix(x.astype("float32"))
        logged.layers["dense"] = x.astype("int16")
        logged.raw = anndata.AnnData(sp.csr_matrix(np.hstack([x, x[:, :2]])), obs=obs.copy(),
                                     var=pd.DataFrame(index=["GENE%d" % g for g in range(N_GENES + 2)]))
        write("layers", logged)
    if tuple(int(p) for p in version.split(".")[:2]) >= (0, 8):
        a = adata(sp.csr_matrix(x.astype("int8") if x.max() < 128 else x.astype("int16")))
        a.obs["perturbation"] = pd.Categorical([None if n == 5 else l for n, l in enumerate(LABELS)])
        a.obs["whole"] = pd.array([None if n == 2 else n for n in range(N_CELLS)], dtype="Int64")
        a.obs["flag"] = pd.array([None if n == 2 else n % 2 == 0 for n in range(N_CELLS)], dtype="boolean")
        write("nullable", a)
    if tuple(int(p) for p in version.split(".")[:2]) >= (0, 12):
        a = adata(sp.csr_matrix(x))
        a.obs["text"] = pd.array([None if n == 2 else "t%d" % (n % 2) for n in range(N_CELLS)], dtype="string")
        anndata.settings.allow_write_nullable_strings = True
        write("nullable_strings", a)
    if short == "0_12":
        # Layouts that AnnData itself does not choose, but that others write.
        source = folder / ("anndata%s_dense_f32.h5ad" % short)
        for name, dtype, chunks in [("dense_tall_chunks", "float16", (N_CELLS, 2)), ("dense_big_endian", ">i4", None)]:
            path = folder / ("anndata%s_%s.h5ad" % (short, name))
            shutil.copy(source, path)
            with h5py.File(path, "r+") as f:
                attributes = dict(f["X"].attrs)
                del f["X"]
                small = np.where(x == 4664, 2048, x)  # exact in half precision
                d = f.create_dataset("X", data=(small if dtype == "float16" else x).astype(dtype), chunks=chunks)
                d.attrs.update(attributes)
            written.append(path.name)
    record(folder, written, anndata=version, numpy=np.__version__, pandas=pd.__version__, scipy=scipy.__version__,
           h5py=h5py.__version__)


def make_tenx(folder):
    import h5py

    x = counts()
    kinds = ["Gene Expression"] * N_GENES + ["CRISPR Guide Capture"] * 2
    guides = np.ones((N_CELLS, 2), dtype=np.int64)

    def matrix(group, table):
        m = sp.csr_matrix(table)  # barcodes x features by rows is features x barcodes by columns
        text = lambda values: np.array(values, dtype="S")
        options = dict(compression="gzip", chunks=True)
        group.create_dataset("barcodes", data=text(BARCODES), **options)
        group.create_dataset("data", data=m.data.astype("int32"), **options)
        group.create_dataset("indices", data=m.indices.astype("int64"), **options)
        group.create_dataset("indptr", data=m.indptr.astype("int64"), **options)
        group.create_dataset("shape", data=np.array(m.shape[::-1], dtype="int32"))
        return text

    with h5py.File(folder / "tenx_v3.h5", "w") as f:
        g = f.create_group("matrix")
        text = matrix(g, np.hstack([x, guides]))
        features = g.create_group("features")
        features["_all_tag_keys"] = text(["genome"])
        features["id"] = text(IDS + ["g1", "g2"])
        features["name"] = text(GENES + ["guide1", "guide2"])
        features["feature_type"] = text(kinds)
        features["genome"] = text(["GRCh38"] * N_GENES + ["", ""])
    with h5py.File(folder / "tenx_v2.h5", "w") as f:
        g = f.create_group("GRCh38")
        text = matrix(g, x)
        g["genes"], g["gene_names"] = text(IDS), text(GENES)
    with h5py.File(folder / "tenx_v2_two_genomes.h5", "w") as f:
        for genome, table in [("GRCh38", x), ("mm10", x + 1)]:
            g = f.create_group(genome)
            text = matrix(g, table)
            g["genes"], g["gene_names"] = text(IDS), text(GENES)
    with h5py.File(folder / "tenx_v3_barnyard.h5", "w") as f:
        g = f.create_group("matrix")
        text = matrix(g, x)
        features = g.create_group("features")
        features["id"], features["name"] = text(IDS), text(GENES)
        features["feature_type"] = text(["Gene Expression"] * N_GENES)
        features["genome"] = text(["GRCh38"] * 5 + ["mm10"] * 4)
    # scanpy must be able to read them too, else the layout is not CellRanger's.
    import scanpy

    v3 = scanpy.read_10x_h5(folder / "tenx_v3.h5")
    assert (v3.X.toarray() == x).all() and list(v3.obs_names) == BARCODES
    assert (scanpy.read_10x_h5(folder / "tenx_v2.h5").X.toarray() == x).all()
    assert (scanpy.read_10x_h5(folder / "tenx_v2_two_genomes.h5", genome="mm10").X.toarray() == x + 1).all()
    record(folder, ["tenx_v3.h5", "tenx_v2.h5", "tenx_v2_two_genomes.h5", "tenx_v3_barnyard.h5"],
           h5py=h5py.__version__, read_back_by_scanpy=scanpy.__version__)


def make_matrix_market(folder):
    x = counts()
    table = lambda rows: "".join("\t".join(row) + "\n" for row in rows)

    def squeeze(path):
        with open(path, "rb") as source, gzip.GzipFile(str(path) + ".gz", "wb", mtime=0) as out:
            shutil.copyfileobj(source, out)
        path.unlink()

    v2 = folder / "mtx_v2" / "GRCh38"
    v2.mkdir(parents=True, exist_ok=True)
    scipy.io.mmwrite(str(v2 / "matrix.mtx"), sp.csc_matrix(x.T), field="integer")
    (v2 / "barcodes.tsv").write_text(table([b] for b in BARCODES))
    (v2 / "genes.tsv").write_text(table(zip(IDS, GENES)))
    v3 = folder / "mtx_v3"
    v3.mkdir(exist_ok=True)
    both = np.hstack([x, np.ones((N_CELLS, 2), dtype=np.int64)])
    scipy.io.mmwrite(str(v3 / "matrix.mtx"), sp.csc_matrix(both.T), field="integer")
    (v3 / "barcodes.tsv").write_text(table([b] for b in BARCODES))
    kinds = ["Gene Expression"] * N_GENES + ["CRISPR Guide Capture"] * 2
    (v3 / "features.tsv").write_text(table(zip(IDS + ["g1", "g2"], GENES + ["guide1", "guide2"], kinds)))
    for path in list(v3.glob("*.tsv")) + list(v3.glob("*.mtx")):
        squeeze(path)
    # Cells as rows, sorted by gene, real numbers, names with a prefix: as people upload them.
    other = folder / "mtx_other"
    other.mkdir(exist_ok=True)
    c = sp.csc_matrix(x).tocoo()
    scipy.io.mmwrite(str(other / "GSM1_matrix.mtx"), sp.coo_matrix((c.data.astype(float), (c.row, c.col)), c.shape),
                     field="real")
    (other / "GSM1_barcodes.tsv").write_text(table([b] for b in BARCODES))
    (other / "GSM1_genes.tsv").write_text(table([g] for g in GENES))
    (folder / "labels.csv").write_text(
        "barcode,intervention,batch,depth\n" + "".join("%s,%s,b%d,%d.5\n" % (b, l, n % 2, n)
                                                       for n, (b, l) in enumerate(zip(BARCODES, LABELS))))
    (folder / "labels_without_header.tsv").write_text(
        "".join("%s\t%s\n" % (b, l) for b, l in zip(BARCODES[:8], LABELS[:8])))
    record(folder, ["mtx_v2", "mtx_v3", "mtx_other"], scipy=scipy.__version__)


def make_tables(folder):
    """A cell per row, as a spreadsheet holds it; a gene per row, as R's write.table and as write.csv write it."""
    x = counts()
    header = ",".join(["barcode", "perturbation", "batch"] + GENES)
    rows = (",".join([b, l, "b%d" % (n % 2)] + ["%d" % v for v in x[n]]) for n, (b, l) in enumerate(zip(BARCODES, LABELS)))
    (folder / "table_cells.csv").write_text("".join(line + "\n" for line in [header, *rows]))
    quoted = lambda names: ['"%s"' % name for name in names]
    rows = [quoted([gene]) + ["%d" % v for v in x[:, g]] for g, gene in enumerate(GENES)]
    table = lambda delimiter, header: "".join(delimiter.join(row) + "\n" for row in [header, *rows])
    (folder / "table_genes.tsv").write_text(table("\t", quoted(BARCODES)))
    with gzip.GzipFile(folder / "table_genes.csv.gz", "wb", mtime=0) as out:
        out.write(table(",", ['""', *quoted(BARCODES)]).encode())


def make_npz(folder):
    x = counts()
    for name, matrix in [("scipy_csr", sp.csr_matrix(x)), ("scipy_csc", sp.csc_matrix(x.astype("float32")))]:
        sp.save_npz(folder / (name + ".npz"), matrix)
        with np.load(folder / (name + ".npz")) as arrays:
            np.savez_compressed(folder / (name + ".npz"), label=np.array(LABELS), cell_names=np.array(BARCODES), **arrays)
    np.savez(folder / "numpy_dense.npz", x=np.asfortranarray(x.astype("uint16")), label=np.array(LABELS))
    record(folder, ["scipy_csr.npz", "scipy_csc.npz", "numpy_dense.npz"], numpy=np.__version__, scipy=scipy.__version__)


def make_variable_genes(folder):
    """Counts of 240 genes and the ranking that scanpy gives them, with and without batches."""
    import anndata
    import scanpy
    import skmisc

    rng = np.random.default_rng(5)
    n, g = 150, 240
    mean = np.exp(rng.normal(0.0, 1.3, g))
    shape = np.exp(rng.normal(0.7, 0.8, g))
    x = rng.poisson(rng.gamma(shape, mean / shape, (n, g)))
    x[:, 7] = 0
    x[:, 9] = 2
    batch = rng.integers(0, 3, n)
    a = anndata.AnnData(x.astype("float32"), obs=pd.DataFrame({"batch": pd.Categorical(batch.astype(str))},
                                                              index=["c%d" % i for i in range(n)]))
    arrays = dict(x=x.astype("uint16"), batch=batch.astype("int64"))
    for name, key in [("plain", None), ("batch", "batch")]:
        for top in (20, 60):  # no tie at the border: scanpy breaks them arbitrarily
            found = scanpy.pp.highly_variable_genes(a, flavor="seurat_v3", n_top_genes=top, batch_key=key, inplace=False)
            arrays["%s_%d" % (name, top)] = np.flatnonzero(found["highly_variable"]).astype("int64")
            if key is None:
                arrays["variances_norm"] = found["variances_norm"].to_numpy(dtype="float64")
    np.savez_compressed(folder / "variable_genes.npz", **arrays)
    record(folder, ["variable_genes.npz"], scanpy=scanpy.__version__, scikit_misc=skmisc.__version__,
           numpy=np.__version__)


def make_public(folder):
    """What files that people hand on are like: labels and columns of every kind, guides among the features, names of genes."""
    import anndata
    import h5py

    folder = folder / "public"
    folder.mkdir(exist_ok=True)
    drugs = ["[('DMSO_TF', 0.0, 'uM')]", "[('A', 5.0, 'uM')]", "[('B', 5.0, 'uM')]"]
    guides = ["non-targeting_0000%d" % i for i in range(1, 5)] + ["STAT1_+_1.23-P1P2", "JAK2_-_1.23-P1P2"]
    missing = ["nan", "None", "NA", "N/A", "<NA>", ""] + LABELS[6:]
    some = lambda values: [None if n == 2 else v for n, v in enumerate(values)]
    n = np.arange(N_CELLS)
    obs = pd.DataFrame(index=pd.Index(BARCODES, name="cell_barcode"))
    obs["z_first"] = n
    obs["condition"] = pd.Categorical(LABELS, categories=["control", "TP53", "KLF1"])
    obs["missing_category"] = pd.Categorical(missing)
    obs["missing_text"] = missing
    obs["drug"] = pd.Categorical([drugs[i % 3] for i in n])
    obs["guide"] = pd.Categorical([guides[i % 6] for i in n])
    obs["blanks"] = pd.Categorical([["TP53 ", "TP53", "KLF1", "klf1"][i % 4] for i in n])
    obs["dose"] = pd.Categorical(np.array([10.0, 0.1, 1.0])[n % 3], categories=[0.1, 1.0, 10.0], ordered=True)
    obs["stimulated"] = pd.Categorical(n % 2 == 0)
    obs["passed"] = pd.array(some(n % 2 == 0), dtype="boolean")
    obs["n_guides"] = pd.array(some(n % 4), dtype="Int64")
    obs["small"] = n.astype("uint8")
    obs["single"] = n.astype("float32") / 3
    obs["empty"] = pd.Categorical([None] * N_CELLS)
    obs["follows"] = np.array([1.0, 2.5, 4.0])[n % 3]
    obs["svae_batch"] = pd.Categorical(["s%d" % (i % 2) for i in n])
    kinds = ["Gene Expression"] * N_GENES + ["CRISPR Guide Capture"] * 2 + ["Antibody Capture"]
    var = pd.DataFrame(index=pd.Index(["ENSG%011d.%d" % (g, g % 3 + 1) for g in range(N_GENES)] + ["g1", "g2", "a1"], name="gene"))
    var["gene_symbols"] = [""] + ["GENE%d" % g for g in range(1, N_GENES)] + ["guide1", "guide2", "CD3"]
    var["feature_types"] = pd.Categorical(kinds)
    x = np.hstack([counts(), 40 * (np.arange(N_CELLS)[:, None] % 3 == [1, 2]), np.full((N_CELLS, 1), 3)])
    a = anndata.AnnData(sp.csr_matrix(x.astype("float32")), obs=obs, var=var)
    a.write_h5ad(folder / "screen.h5ad")
    with h5py.File(folder / "screen.h5ad", "r+") as f:
        # AnnData makes categories of text, and no more writes a name with a slash.
        del f["obs/missing_text"]
        f["obs/missing_text"] = np.array(missing, dtype=h5py.string_dtype())
        f["obs/missing_text"].attrs.update({"encoding-type": "string-array", "encoding-version": "0.2.0"})
        f["obs/part/of"] = n
        f["obs/part/of"].attrs.update({"encoding-type": "array", "encoding-version": "0.2.0"})
        order = list(f["obs"].attrs["column-order"])
        f["obs"].attrs["column-order"] = np.array(order[:2] + ["part/of"] + order[2:], dtype=h5py.string_dtype())
    assert list(anndata.read_h5ad(folder / "screen.h5ad").obs)[:3] == ["z_first", "condition", "part/of"]
    # The same without a word on the features: guides are genes.
    del a.var["feature_types"]
    a.write_h5ad(folder / "guides_as_genes.h5ad")
    binary = anndata.AnnData(sp.csr_matrix(counts() > 0), obs=obs[["condition"]], var=var.iloc[:N_GENES][[]])
    binary.layers["counts"] = sp.csr_matrix(counts())
    binary.write_h5ad(folder / "binary.h5ad")
    record(folder.parent, ["public/screen.h5ad", "public/guides_as_genes.h5ad", "public/binary.h5ad"],
           anndata=anndata.__version__, numpy=np.__version__, pandas=pd.__version__, scipy=scipy.__version__, h5py=h5py.__version__)


def make_containers(folder):
    """What kb, alevin-fry and split-pipe write; a MuData file whose cells come in another order; a screen of two lanes."""
    import anndata
    import mudata

    x = counts()
    lines = lambda values: "".join(value + "\n" for value in values)

    def part(name):
        (folder / name).mkdir(parents=True, exist_ok=True)
        return folder / name

    kb = part("kb_counts")
    scipy.io.mmwrite(str(kb / "cells_x_genes.mtx"), sp.csr_matrix(x.astype(float)), field="real")
    (kb / "cells_x_genes.barcodes.txt").write_text(lines(BARCODES))
    (kb / "cells_x_genes.genes.txt").write_text(lines(i + ".1" for i in IDS))
    (kb / "cells_x_genes.genes.names.txt").write_text(lines(GENES))
    fry = part("alevin_fry/alevin")
    spliced, unspliced = x // 2, x // 3
    usa = np.hstack([spliced, unspliced, x - spliced - unspliced])
    scipy.io.mmwrite(str(fry / "quants_mat.mtx"), sp.csr_matrix(usa), field="integer")
    (fry / "quants_mat_rows.txt").write_text(lines(BARCODES))
    (fry / "quants_mat_cols.txt").write_text(lines(IDS))
    (fry.parent / "meta_info.json").write_text(json.dumps(dict(num_genes=usa.shape[1], usa_mode=True)) + "\n")
    parse = part("splitpipe")
    scipy.io.mmwrite(str(parse / "DGE.mtx"), sp.csr_matrix(x), field="integer")
    (parse / "cell_metadata.csv").write_text("bc_wells,sample\n" + lines("%s,s%d" % (b, n % 2) for n, b in enumerate(BARCODES)))
    (parse / "all_genes.csv").write_text("gene_id,gene_name,genome\n" + lines("%s,%s,hg38" % g for g in zip(IDS, GENES)))
    # The second lane lacks a gene, and has the others in another order; one barcode is in both.
    for lane, cells, genes in [(1, range(6), list(range(N_GENES))), (2, range(6, N_CELLS), list(range(N_GENES - 1))[::-1])]:
        where = part("lanes/lane_%d" % lane)
        barcodes = [BARCODES[n][:-1] + "1" for n in cells]
        barcodes[0] = BARCODES[0]
        guides = np.array([[40 * (n % 3 == 1), 40 * (n % 3 == 2)] for n in cells])
        both = np.hstack([x[list(cells)][:, genes], guides])
        scipy.io.mmwrite(str(where / "matrix.mtx"), sp.csc_matrix(both.T), field="integer")
        kinds = ["Gene Expression"] * len(genes) + ["CRISPR Guide Capture"] * 2
        rows = zip([IDS[g] for g in genes] + ["g1", "g2"], [GENES[g] for g in genes] + ["guide1", "guide2"], kinds)
        (where / "features.tsv").write_text(lines("\t".join(row) for row in rows))
        (where / "barcodes.tsv").write_text(lines(barcodes))
        (where / "labels.csv").write_text("barcode,intervention\n" + lines("%s,%s" % (b, LABELS[n]) for b, n in zip(barcodes, cells)))
    rna = anndata.AnnData(sp.csr_matrix(x.astype("float32")), obs=pd.DataFrame({"depth": np.arange(N_CELLS) + 0.5}, index=BARCODES),
                          var=pd.DataFrame({"gene_ids": IDS}, index=["GENE%d" % g for g in range(N_GENES)]))
    some = BARCODES[::-2]  # the modality that comes first has half of the cells, the last one first
    adt = anndata.AnnData(np.ones((len(some), 2), dtype="float32"), obs=pd.DataFrame(index=some), var=pd.DataFrame(index=["CD3", "CD4"]))
    guides = 40 * (np.arange(N_CELLS)[:, None] % 3 == [1, 2])
    gdo = anndata.AnnData(sp.csr_matrix(guides.astype("float32")), obs=pd.DataFrame(index=BARCODES), var=pd.DataFrame(index=["g1", "g2"]))
    whole = mudata.MuData({"adt": adt, "rna": rna, "gdo": gdo})
    of = {b: n for n, b in enumerate(BARCODES)}
    assert list(whole.obs_names) != BARCODES
    whole.obs["perturbation"] = pd.Categorical([LABELS[of[b]] for b in whole.obs_names])
    whole.obs["batch"] = ["b%d" % (of[b] % 2) for b in whole.obs_names]
    whole.write(folder / "screen.h5mu")
    from importlib.metadata import version

    record(folder, ["kb_counts", "alevin_fry", "splitpipe", "lanes"], scipy=scipy.__version__)
    record(folder, ["screen.h5mu"], mudata=version("mudata"), anndata=version("anndata"), pandas=pd.__version__)


def main():
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    kinds = sys.argv[2:] or ["anndata", "tenx", "matrix_market", "tables", "npz", "variable_genes", "public", "containers"]
    for kind in kinds:
        globals()["make_" + kind](folder)


if __name__ == "__main__":
    main()
