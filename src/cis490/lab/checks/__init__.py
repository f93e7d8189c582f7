"""What a corpus is judged by, a subject a file: each check has one limit, named at its top."""
