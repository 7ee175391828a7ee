# Reads results.h5ad with rhdf5, every part of it that a user of R would look at.
#
#     Rscript scripts/check_results_h5ad.R RESULTS.h5ad ...

library(rhdf5)

for (path in commandArgs(trailingOnly = TRUE)) {
  parts <- h5ls(path)
  sets <- parts[parts$otype == "H5I_DATASET", ]
  # Each data set is read whole; an unreadable one ends the script.
  for (name in paste(sub("/$", "", sets$group), sets$name, sep = "/")) {
    invisible(h5read(path, name))
  }
  latents <- h5read(path, "obsm/X_svae")
  columns <- h5readAttributes(path, "obs")[["column-order"]]
  index <- h5read(path, paste0("obs/", h5readAttributes(path, "obs")[["_index"]]))
  # The axes of R run the other way.
  stopifnot(ncol(latents) == length(index), is.numeric(latents), "svae_split" %in% columns)
  split <- h5read(path, "obs/svae_split")
  stopifnot(all(split$codes < length(split$categories)), length(split$codes) == length(index))
  cat(path, ": ", length(index), " cells, ", nrow(latents), " latents, read by rhdf5\n", sep = "")
}
