//! Bookinfo: details, ratings, reviews and productpage.
