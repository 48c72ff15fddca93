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

fn passes(counts: &RateLimitTable, limit: &RateLimit, key: BucketOwner<'_>, now: u64) -> bool {
    let statuses = counts.take(buckets(limit, key), Ticks(now));
    statuses[0].is_allowed
}

/// Whether requests at these times pass.
fn pass_at(limit: &RateLimit, times: &[u64]) -> Vec<bool> {
    let counts = RateLimitTable::default();
    let times = times.iter();
    times
        .map(|time| passes(&counts, limit, v4(1), NOW + time))
        .collect()
}

#[test]
fn so_many_may_come_at_once_and_one_more_when_the_first_has_flowed_out() {
    let limit = limit(10, 60, 10);
    let mut times = vec![0; 11];
    times.extend([6 * SECOND - 1, 6 * SECOND, 6 * SECOND, 12 * SECOND]);
    let mut expected = vec![true; 10];
    expected.extend([false, false, true, false, true]);
    assert_eq!(pass_at(&limit, &times), expected);
}

#[test]
fn a_smaller_burst_lets_fewer_come_at_once_and_as_many_in_the_long_run() {
    let limit = limit(10, 60, 2);
    assert_eq!(pass_at(&limit, &[0, 0, 0]), [true, true, false]);
    let steady: Vec<u64> = (0..100).map(|number| number * 6 * SECOND).collect();
    assert!(pass_at(&limit, &steady).into_iter().all(|passed| passed));
}

#[test]
fn a_caller_is_told_how_it_stands() {
    let limit = limit(10, 60, 10);
    let (counts, key) = (RateLimitTable::default(), v4(1));
    let take = |now| counts.take(buckets(&limit, key), Ticks(NOW + now))[0];
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
fn a_clock_that_goes_back_lets_nobody_through_sooner() {
    let limit = limit(1, 60, 1);
    let times = [120 * SECOND, 0, 60 * SECOND, 180 * SECOND];
    assert_eq!(pass_at(&limit, &times), [true, false, false, true]);
}

#[test]
fn callers_do_not_disturb_each_other() {
    let (counts, limit) = (RateLimitTable::default(), limit(1, 60, 1));
    let of = |subject| BucketOwner::Subject {
        issuer: "app",
        subject,
    };
    let other_issuer = BucketOwner::Subject {
        issuer: "partner",
        subject: "alice",
    };
    for key in [v4(1), v4(2), of("alice"), of("bob"), other_issuer] {
        assert!(passes(&counts, &limit, key, NOW), "{key:?}");
        assert!(!passes(&counts, &limit, key, NOW), "{key:?}");
    }
}

#[test]
fn an_address_is_known_in_every_form_and_ipv6_by_its_network() {
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
fn equal_limits_of_one_place_share_their_counts_and_others_do_not() {
    let counts = RateLimitTable::default();
    assert!(passes(&counts, &limit(2, 60, 1), v4(1), NOW));
    assert!(!passes(&counts, &limit(2, 60, 1), v4(1), NOW));
    let minute = Duration::from_mins(1);
    for other in [
        limit(3, 60, 1),
        limit(2, 61, 1),
        limit(2, 60, 2),
        RateLimit::new("GET /login", RateKey::ClientAddress, 2, minute, 1),
        RateLimit::new("POST /login", RateKey::Subject, 2, minute, 1),
    ] {
        assert!(passes(&counts, &other, v4(1), NOW), "{other:?}");
    }
}

#[test]
fn what_one_limit_refuses_is_counted_for_no_other() {
    let counts = RateLimitTable::default();
    let limits = [limit(100, 3600, 100), limit(1, 60, 1)];
    let first = counts.take(by_client(&limits), Ticks(NOW));
    assert_eq!((first[0].remaining, first[1].remaining), (99, 0));
    for _ in 0..50 {
        let refused = counts.take(by_client(&limits), Ticks(NOW));
        assert!(!refused[1].is_allowed);
    }
    let next = counts.take(by_client(&limits), Ticks(NOW + 60 * SECOND));
    assert!(next[1].is_allowed);
    assert_eq!(next[0].remaining, 99);
}

#[test]
fn a_million_callers_take_no_more_space_and_do_not_clear_a_full_count() {
    let (counts, limit) = (RateLimitTable::default(), limit(10, 60, 10));
    for _ in 0..10 {
        assert!(passes(&counts, &limit, v4(1), NOW));
    }
    for number in 0..1_000_000_u64 {
        assert!(passes(&counts, &limit, BucketOwner::V6(number), NOW));
    }
    assert!(!passes(&counts, &limit, v4(1), NOW));
    let (used, evicted) = counts.used_and_evicted(Ticks(NOW));
    assert_eq!(used, MAX_BUCKETS);
    assert_eq!(evicted, 1_000_001 - MAX_BUCKETS as u64);
    assert_eq!(counts.used_and_evicted(Ticks(NOW + 60 * SECOND)).0, 0);
}

#[test]
fn a_limit_holds_for_all_threads_together() {
    let (counts, limit) = (RateLimitTable::default(), limit(100, 3600, 100));
    let passed = thread::scope(|scope| {
        let one = || {
            (0..1000)
                .filter(|_| passes(&counts, &limit, v4(1), NOW))
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
fn writes_every_status_or_the_one_that_refuses() {
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
fn refuses_by_the_first_full_bucket() {
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
    /// The model is a bucket with a hole, filled and emptied step by step.
    #[test]
    fn a_limit_lets_through_what_a_leaking_bucket_has_room_for(
        requests in 1..50_u64,
        seconds in 1..100_u64,
        burst in 1..50_u64,
        pauses in proptest::collection::vec(0..20_000_000_u64, 1..200),
    ) {
        let limit = limit(requests, seconds, burst.min(requests));
        let drop = seconds * SECOND / requests;
        let room = drop * burst.min(requests);
        let (counts, mut level, mut now) = (RateLimitTable::default(), 0_u64, NOW);
        let mut passed = Vec::new();
        for pause in pauses {
            now += pause;
            level = level.saturating_sub(pause);
            let fits = level + drop <= room;
            level += if fits { drop } else { 0 };
            let status = counts.take(buckets(&limit, v4(1)), Ticks(now))[0];
            prop_assert_eq!(status.is_allowed, fits);
            if fits {
                passed.push(now);
                prop_assert_eq!(status.remaining, (room - level) / drop);
                prop_assert_eq!(status.wait, level);
            } else {
                prop_assert_eq!(status.wait, level + drop - room);
            }
        }
        // Whatever the model says: never more than this in any time.
        for (place, first) in passed.iter().enumerate() {
            let within = passed[place..].iter().filter(|time| *time - first < seconds * SECOND);
            prop_assert!(within.count() as u64 <= burst.min(requests) + seconds * SECOND / drop);
        }
    }

    #[test]
    fn whoever_waits_as_told_is_let_through_and_nobody_who_waits_less(
        requests in 1..50_u64,
        seconds in 1..100_u64,
        early in 1..SECOND,
    ) {
        let (counts, limit) = (RateLimitTable::default(), limit(requests, seconds, requests));
        let mut now = NOW;
        for _ in 0..requests {
            prop_assert!(passes(&counts, &limit, v4(1), now));
        }
        for _ in 0..5 {
            let told = counts.take(buckets(&limit, v4(1)), Ticks(now))[0];
            prop_assert!(!told.is_allowed);
            prop_assert!(!passes(&counts, &limit, v4(1), now + told.wait - early.min(told.wait)));
            now += told.wait;
            prop_assert!(passes(&counts, &limit, v4(1), now));
        }
    }
}
