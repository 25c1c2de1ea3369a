//! The figures of `README.md`, with few seeds and small clusters.

use tiebeam_sim::figures::{self, Size};

fn check(number: u32) {
    let (_, measure) = figures::ALL
        .into_iter()
        .find(|figure| figure.0 == number)
        .expect("a figure has this number");
    let lines = measure(Size::Short);
    let table: String = lines.iter().map(|line| format!("{line}\n")).collect();
    assert!(lines.iter().all(|line| line.holds), "\n{table}");
}

macro_rules! figures {
    ($($name:ident: $number:expr,)*) => {
        $(
            #[test]
            fn $name() {
                check($number);
            }
        )*

        #[test]
        fn every_figure_is_tested() {
            let tested = [$($number),*];
            assert!(figures::ALL.iter().map(|figure| figure.0).eq(tested));
        }
    };
}

figures! {
    figure_1_probes_fail_as_often_as_they_must: 1,
    figure_2_one_of_50_vanishes: 2,
    figure_3_one_of_200_vanishes: 3,
    figure_4_one_of_1000_vanishes: 4,
    figure_5_the_first_suspicion: 5,
    figure_6_the_fast_profile: 6,
    figure_7_nothing_but_loss: 7,
    figure_8_nothing_but_loss_in_the_fast_profile: 8,
    figure_9_a_refuted_suspicion_leaves_no_trace: 9,
    figure_10_a_stale_death_is_ignored: 10,
    figure_11_one_member_misses_a_refutation: 11,
    figure_12_members_stand_still: 12,
    figure_13_one_member_stands_still: 13,
    figure_14_a_driver_hangs: 14,
    figure_15_a_join_of_200: 15,
    figure_16_a_join_of_1000: 16,
    figure_17_hard_joins: 17,
    figure_18_a_leave: 18,
    figure_19_a_restart: 19,
    figure_20_all_restart: 20,
    figure_21_halves: 21,
    figure_22_one_is_isolated: 22,
    figure_23_one_way_cuts: 23,
    figure_24_bursts: 24,
    figure_25_a_tenth_vanishes: 25,
    figure_26_a_member_flaps: 26,
    figure_27_two_hosts_with_one_name: 27,
    figure_28_duplicates_and_late_messages: 28,
    figure_29_hostile_bytes: 29,
    figure_30_the_longest_message: 30,
    figure_31_metadata: 31,
    figure_32_broadcasts: 32,
    figure_34_numbers_at_their_ends: 34,
    figure_35_idle_cost: 35,
    figure_36_cost_of_loss: 36,
    figure_37_a_node_without_a_core_freezes: 37,
    figure_38_a_node_without_a_core_is_busy: 38,
    figure_40_refused_evictions: 40,
}
