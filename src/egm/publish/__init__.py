"""From a run to a model that others load: adapters merged, folders with all their pieces, the Hugging Face Hub."""
