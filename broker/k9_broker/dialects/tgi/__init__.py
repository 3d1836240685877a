"""The servers of the text-generation-inference family: TGI for texts, TEI for embeddings."""
