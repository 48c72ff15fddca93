use std::thread;

use proptest::prelude::*;

use super::*;

const SECOND: u64 = MICROS;
const NOW: u64 = 3600 * SECOND;

fn limit(requests: u64, seconds: u64, burst: u64) -> RateLimit {
    let per = Duration::from_secs(seconds);
    RateLimit::new("POST /login", RateKey::ClientAddress, requests, per, burst)
}

fn v4(last: u8) -> BucketOwner<'static> {
    BucketOwner::V4(Ipv4Addr::new(192, 0, 2, last))
}

fn buckets<'a>(limit: &'a RateLimit, owner: BucketOwner<'a>) -> Buckets<'a> {
    let limits = std::slice::from_ref(limit);
    Buckets { limits, owner }
}

fn is_allowed(table: &RateLimitTable, limit: &RateLimit, key: BucketOwner<'_>, now: u64) -> bool {
    let statuses = table.take(buckets(limit, key), Ticks(now));
    statuses[0].is_allowed
}

/// Results of requests at these times.
fn allowed_at(limit: &RateLimit, times: &[u64]) -> Vec<bool> {
    let table = RateLimitTable::default();
    let times = times.iter();
    times
        .map(|time| is_allowed(&table, limit, v4(1), NOW + time))
        .collect()
}

#[test]
fn allows_a_burst_and_then_one_request_per_interval() {
    let limit = limit(10, 60, 10);
    let mut times = vec![0; 11];
    times.extend([6 * SECOND - 1, 6 * SECOND, 6 * SECOND, 12 * SECOND]);
    let mut expected = vec![true; 10];
    expected.extend([false, false, true, false, true]);
    assert_eq!(allowed_at(&limit, &times), expected);
}

#[test]
fn allows_a_smaller_burst_at_the_same_average_rate() {
    let limit = limit(10, 60, 2);
    assert_eq!(allowed_at(&limit, &[0, 0, 0]), [true, true, false]);
    let steady: Vec<u64> = (0..100).map(|number| number * 6 * SECOND).collect();
    assert!(allowed_at(&limit, &steady).into_iter().all(|passed| passed));
}

#[test]
fn reports_remaining_requests_and_wait() {
    let limit = limit(10, 60, 10);
    let (table, key) = (RateLimitTable::default(), v4(1));
    let take = |now| table.take(buckets(&limit, key), Ticks(NOW + now))[0];
    let status = |is_allowed, remaining, wait| RateLimitStatus {
        is_allowed,
        remaining,
        wait: wait * SECOND,
    };
    assert_eq!(take(0), status(true, 9, 6));
    assert_eq!(take(0), status(true, 8, 12));
    for _ in 0..8 {
        take(0);
    }
    assert_eq!(take(0), status(false, 0, 6));
    assert_eq!(take(5 * SECOND), status(false, 0, 1));
    assert_eq!(take(60 * SECOND), status(true, 9, 6));
}

#[test]
fn allows_no_request_sooner_when_the_clock_goes_back() {
    let limit = limit(1, 60, 1);
    let times = [120 * SECOND, 0, 60 * SECOND, 180 * SECOND];
    assert_eq!(allowed_at(&limit, &times), [true, false, false, true]);
}

#[test]
fn counts_every_caller_separately() {
    let (table, limit) = (RateLimitTable::default(), limit(1, 60, 1));
    let of = |subject| BucketOwner::Subject {
        issuer: "app",
        subject,
    };
    let other_issuer = BucketOwner::Subject {
        issuer: "partner",
        subject: "alice",
    };
    for key in [v4(1), v4(2), of("alice"), of("bob"), other_issuer] {
        assert!(is_allowed(&table, &limit, key, NOW), "{key:?}");
        assert!(!is_allowed(&table, &limit, key, NOW), "{key:?}");
    }
}

#[test]
fn equates_all_forms_of_an_address_and_groups_ipv6_by_network() {
    let key = |text: &str| BucketOwner::address(Some(text.parse().unwrap()));
    assert_eq!(key("192.0.2.1"), key("::ffff:192.0.2.1"));
    assert_ne!(key("192.0.2.1"), key("192.0.2.2"));
    assert_eq!(
        key("2001:db8:1:2::1"),
        key("2001:db8:1:2:ffff:ffff:ffff:ffff")
    );
    assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
    assert_ne!(BucketOwner::address(None), key("0.0.0.0"));
}

#[test]
fn shares_buckets_only_between_equal_limits_of_one_route() {
    let table = RateLimitTable::default();
    assert!(is_allowed(&table, &limit(2, 60, 1), v4(1), NOW));
    assert!(!is_allowed(&table, &limit(2, 60, 1), v4(1), NOW));
    let minute = Duration::from_mins(1);
    for other in [
        limit(3, 60, 1),
        limit(2, 61, 1),
        limit(2, 60, 2),
        RateLimit::new("GET /login", RateKey::ClientAddress, 2, minute, 1),
        RateLimit::new("POST /login", RateKey::Subject, 2, minute, 1),
    ] {
        assert!(is_allowed(&table, &other, v4(1), NOW), "{other:?}");
    }
}

#[test]
fn counts_a_rejected_request_for_no_other_limit() {
    let table = RateLimitTable::default();
    let limits = [limit(100, 3600, 100), limit(1, 60, 1)];
    let first = table.take(by_client(&limits), Ticks(NOW));
    assert_eq!((first[0].remaining, first[1].remaining), (99, 0));
    for _ in 0..50 {
        let refused = table.take(by_client(&limits), Ticks(NOW));
        assert!(!refused[1].is_allowed);
    }
    let next = table.take(by_client(&limits), Ticks(NOW + 60 * SECOND));
    assert!(next[1].is_allowed);
    assert_eq!(next[0].remaining, 99);
}

#[test]
fn keeps_a_full_bucket_among_a_million_callers() {
    let (table, limit) = (RateLimitTable::default(), limit(10, 60, 10));
    for _ in 0..10 {
        assert!(is_allowed(&table, &limit, v4(1), NOW));
    }
    for number in 0..1_000_000_u64 {
        assert!(is_allowed(&table, &limit, BucketOwner::V6(number), NOW));
    }
    assert!(!is_allowed(&table, &limit, v4(1), NOW));
    let (used, evicted) = table.used_and_evicted(Ticks(NOW));
    assert_eq!(used, MAX_BUCKETS);
    assert_eq!(evicted, 1_000_001 - MAX_BUCKETS as u64);
    assert_eq!(table.used_and_evicted(Ticks(NOW + 60 * SECOND)).0, 0);
}

#[test]
fn enforces_a_limit_across_threads() {
    let (table, limit) = (RateLimitTable::default(), limit(100, 3600, 100));
    let passed = thread::scope(|scope| {
        let one = || {
            (0..1000)
                .filter(|_| is_allowed(&table, &limit, v4(1), NOW))
                .count()
        };
        let all: Vec<_> = (0..4).map(|_| scope.spawn(one)).collect();
        all.into_iter()
            .map(|one| one.join().unwrap())
            .sum::<usize>()
    });
    assert_eq!(passed, 100);
}

fn by_client(limits: &[RateLimit]) -> Buckets<'_> {
    let owner = v4(1);
    Buckets { limits, owner }
}

#[test]
fn writes_every_status_or_only_the_rejecting_one() {
    let table = RateLimitTable::default();
    let limits = [limit(2, 60, 2), limit(100, 3600, 100)];
    let route = RouteLimits::new(limits.to_vec(), Vec::new());
    let mut fields = Vec::new();
    for _ in 0..3 {
        let mut request = RequestLimits::default();
        let buckets = by_client(&limits);
        let _refusal = request.record(buckets, &table.take(buckets, Ticks(NOW)));
        let mut headers = HeaderMap::new();
        route.write_headers(&request, &mut headers);
        assert_eq!(
            headers[RATE_LIMIT_POLICY],
            "\"client-address-60s\";q=2;w=60, \"client-address-3600s\";q=100;w=3600"
        );
        fields.push(headers[RATE_LIMIT].to_str().unwrap().to_owned());
    }
    assert_eq!(
        fields,
        [
            "\"client-address-60s\";r=1;t=30, \"client-address-3600s\";r=99;t=36",
            "\"client-address-60s\";r=0;t=60, \"client-address-3600s\";r=98;t=72",
            "\"client-address-60s\";r=0;t=30",
        ]
    );
}

#[test]
fn rejects_at_the_first_full_bucket() {
    let limits = [limit(2, 60, 2), limit(9, 61, 9)];
    let buckets = by_client(&limits);
    let mut request = RequestLimits::default();
    let statuses = [limits[0].allowed(0), RateLimitStatus::refused(1)];
    let refusal = Refusal::RateLimited {
        by: RateKey::ClientAddress,
        wait: 1,
    };
    assert_eq!(request.record(buckets, &statuses), Err(refusal));
}

#[test]
fn writes_no_field_for_a_request_that_was_not_counted() {
    let route = RouteLimits::new(vec![limit(2, 60, 2)], Vec::new());
    let mut request = RequestLimits::default();
    assert_eq!(request.record(by_client(route.by_client()), &[]), Ok(()));
    let mut headers = HeaderMap::new();
    route.write_headers(&request, &mut headers);
    assert!(headers.is_empty(), "{headers:?}");
}

#[test]
fn names_buckets_alike_in_every_process_and_without_the_address() {
    let limits = [limit(2, 60, 2), limit(9, 61, 9)];
    let names = |client: &str| {
        let owner = BucketOwner::address(Some(client.parse().unwrap()));
        let limits = &limits;
        Buckets { limits, owner }.names("gate")
    };
    let [one, other] = <[String; 2]>::try_from(names("192.0.2.1")).unwrap();
    assert_eq!(one, "gate:{qc6Sphm0sIj9bOqmVnZ9Tg}:qlahORmOsoCXFz7DYcveBQ");
    assert_eq!(
        one.split_once('}').unwrap().0,
        other.split_once('}').unwrap().0
    );
    assert_ne!(one, other);
    assert_ne!(names("192.0.2.2")[0], one);
}

proptest! {
    /// The model is a leaky bucket, filled and drained step by step.
    #[test]
    fn allows_the_requests_that_a_leaky_bucket_has_room_for(
        requests in 1..50_u64,
        seconds in 1..100_u64,
        burst in 1..50_u64,
        pauses in proptest::collection::vec(0..20_000_000_u64, 1..200),
    ) {
        let limit = limit(requests, seconds, burst.min(requests));
        let interval = seconds * SECOND / requests;
        let capacity = interval * burst.min(requests);
        let (table, mut level, mut now) = (RateLimitTable::default(), 0_u64, NOW);
        let mut passed = Vec::new();
        for pause in pauses {
            now += pause;
            level = level.saturating_sub(pause);
            let fits = level + interval <= capacity;
            level += if fits { interval } else { 0 };
            let status = table.take(buckets(&limit, v4(1)), Ticks(now))[0];
            prop_assert_eq!(status.is_allowed, fits);
            if fits {
                passed.push(now);
                prop_assert_eq!(status.remaining, (capacity - level) / interval);
                prop_assert_eq!(status.wait, level);
            } else {
                prop_assert_eq!(status.wait, level + interval - capacity);
            }
        }
        // Independent of the model: the limit of any window.
        for (index, first) in passed.iter().enumerate() {
            let within = passed[index..].iter().filter(|time| *time - first < seconds * SECOND);
            prop_assert!(within.count() as u64 <= burst.min(requests) + seconds * SECOND / interval);
        }
    }

    #[test]
    fn allows_a_request_after_the_reported_wait_and_not_before(
        requests in 1..50_u64,
        seconds in 1..100_u64,
        early in 1..SECOND,
    ) {
        let (table, limit) = (RateLimitTable::default(), limit(requests, seconds, requests));
        let mut now = NOW;
        for _ in 0..requests {
            prop_assert!(is_allowed(&table, &limit, v4(1), now));
        }
        for _ in 0..5 {
            let status = table.take(buckets(&limit, v4(1)), Ticks(now))[0];
            prop_assert!(!status.is_allowed);
            prop_assert!(!is_allowed(&table, &limit, v4(1), now + status.wait - early.min(status.wait)));
            now += status.wait;
            prop_assert!(is_allowed(&table, &limit, v4(1), now));
        }
    }
}
