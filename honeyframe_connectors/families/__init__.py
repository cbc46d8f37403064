"""What several connector types share."""
