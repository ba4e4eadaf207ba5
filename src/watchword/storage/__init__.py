"""What a store is: records, verbs, and the promises that every driver keeps."""
