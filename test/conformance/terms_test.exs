# Terms through U: what U's `echo` sends back is what it was sent.
for kind <- Support.Target.kinds() do
  defmodule Support.Target.module(Conformance.TermsTest, kind) do
    use Support.Case, async: true, kind: kind

    # By message, and by a call: `{pid, term}` is answered by `{echo, term}`, a call by its request.
    defp echo(u, term, timeout \\ 30_000) do
      send({:echo, u.node}, {self(), term})
      assert_receive {pid, back} when node(pid) == u.node, timeout
      back
    end

    # `===` takes 0.0 and -0.0 for equal; their bytes differ.
    defp assert_same(back, term) do
      assert back === term
      assert bytes(back) == bytes(term)
    end

    defp bytes(term), do: :erlang.term_to_binary(term, [:deterministic, minor_version: 2])

    defp many_words(n), do: reference(:n@h, 7, Enum.to_list(1..n))

    defp zoo do
      free = {:free, ["variables"], 1.5}
      binary = for byte <- 0..255, into: "", do: <<byte>>

      %{
        "small integers" => [0, 1, 255, 256, -1],
        "32 bits" => [0x7FFFFFFF, -0x80000000, 0x80000000, -0x80000001, 0xFFFFFFFF],
        "64 bits and around" =>
          for(
            bits <- [58, 59, 60, 62, 63, 64, 65],
            off <- [-1, 0, 1],
            sign <- [1, -1],
            do: sign * (Integer.pow(2, bits) + off)
          ),
        "big integers" => [
          Integer.pow(2, 2039),
          Integer.pow(2, 2040) - 1,
          Integer.pow(2, 2040),
          Integer.pow(2, 3000) - 12_345,
          -Integer.pow(2, 3000)
        ],
        "a very big integer" => Integer.pow(3, 40_000),
        "floats" => [
          0.0,
          1.5,
          -3.141592653589793,
          1.7976931348623157e308,
          5.0e-324,
          2.2250738585072014e-308,
          -0.1
        ],
        "minus zero" => -0.0,
        "atoms" => [
          :ok,
          nil,
          true,
          false,
          :"",
          :"hello world",
          :ä,
          :день,
          Elixir.String.Chars,
          :"quo'ted",
          :"new\nline",
          :"\0"
        ],
        "an atom of 255 characters" => String.to_atom(String.duplicate("a", 255)),
        "an atom of 255 emoji" => String.to_atom(String.duplicate("😀", 255)),
        "strings" => [
          ~c"abc",
          [0],
          [255],
          [?h, 0xE9, ?l],
          Enum.to_list(0..255),
          List.duplicate(?x, 65_535),
          List.duplicate(?x, 65_536)
        ],
        "lists" => [
          [],
          [[]],
          [1, 256],
          Enum.to_list(250..260),
          [:a, "b", ~c"c", 1.0, {}],
          [0x1F600],
          List.duplicate(:x, 1000)
        ],
        "improper lists" => [[:a | :b], [1, 2 | 3], [[] | ""], ["x", [1 | 2] | {3}], [:alias | make_ref()]],
        "tuples" => [
          {},
          {1},
          {:ok, {}},
          List.to_tuple(Enum.to_list(1..255)),
          List.to_tuple(Enum.to_list(1..256)),
          List.to_tuple(Enum.to_list(1..5000))
        ],
        "binaries" => [
          "",
          "abc",
          binary,
          "héllo 😀",
          :binary.copy(<<0>>, 100_000),
          :binary.part(binary, 100, 50)
        ],
        "bitstrings" => [<<1::1>>, <<5::3>>, <<127::7>>, <<257::9>>, <<binary::binary, 85::7>>, <<0::1>>],
        "maps" => [
          %{},
          %{a: 1},
          %{1 => :integer, 1.0 => :float},
          %{[] => {}, {} => [], %{} => "", "" => %{}},
          %{a: %{b: %{c: %{}}}}
        ],
        "a map of 40 keys" => Map.new(1..40, &{&1, to_string(&1)}),
        "a map of 1000 keys" => Map.new(1..1000, &{{:key, &1}, [&1 | &1]}),
        "a struct" => %URI{host: "example.org", port: 80},
        "pids" => [
          self(),
          pid(:n@h, 38, 0, 7),
          pid(:n@h, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD),
          pid(:n@h, 1, 2, 0),
          stale(self())
        ],
        "references" => [make_ref(), :erlang.alias([:explicit_unalias]) | Enum.map(1..5, &many_words/1)],
        "a reference with all bits set" => reference(:n@h, 0xFFFFFFFF, List.duplicate(0xFFFFFFFF, 5)),
        "ports" =>
          Enum.take(Port.list(), 3) ++
            [port(:n@h, 5, 7), port(:n@h, 0xFFFFFFFF, 7), port(:n@h, 0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF)],
        "closures" => [
          fn -> :ok end,
          fn x -> {x, free} end,
          &(&1 + length([&2])),
          fn a, b, c -> [a, b, c | free] end
        ],
        "exports" => [&:lists.reverse/1, &String.length/1, &:erlang.node/0, Function.capture(:m, :f, 255)],
        "a message of a gen_server" =>
          {:"$gen_call", {self(), [:alias | make_ref()]}, {:put, "k", %{v: [1, 2.5, ~c"three", :four]}}}
      }
    end

    test "check 19: every kind of term", %{u: u} do
      for {what, term} <- zoo() do
        back = echo(u, term)
        assert {what, back} === {what, term}
        assert_same(back, term)
      end
    end

    if Support.Releases.own() >= 29 do
      # `#m:pair{a = 7, b = [7]}`, which Elixir cannot write.
      test "check 19: a native record", %{u: u} do
        fields = <<119, 1, "a", 119, 1, "b", 97, 7, 107, 0, 1, 7>>
        record = :erlang.binary_to_term(<<131, 67, 2::32, 0, 119, 1, "m", 119, 4, "pair", fields::binary>>)
        assert_same(echo(u, record), record)
        assert GenServer.call({:echo, u.node}, [record, {record}]) === [record, {record}]
      end
    end

    test "check 19: all of them in one message, and as a call", %{u: u} do
      zoo = zoo()
      assert_same(echo(u, zoo), zoo)
      assert_same(GenServer.call({:echo, u.node}, zoo, 30_000), zoo)
    end

    test "check 19: as an argument and a result of rpc", %{u: u} do
      zoo = zoo()
      assert_same(Target.on(u, :call, [{:echo, u.node}, zoo, 30_000]), zoo)
    end

    test "check 19: a closure that went through U still runs", %{u: u} do
      test = self()
      add = fn a, b -> {a + b, test} end
      assert echo(u, add).(1, 2) == {3, test}
    end

    test "check 19: encodings that OTP only reads", %{u: u} do
      raw = RawPeer.connect!(u.node)
      me = RawPeer.pid(raw, 1)
      name = <<119, 3, "n@h">>

      spellings = [
        {<<99, "1.50000000000000000000e+00", 0::40>>, 1.5},
        {<<100, 2::16, 0xE4, 0xF6>>, :äö},
        {<<115, 2, 0xE4, 0xF6>>, :äö},
        {<<118, 5::16, "hello">>, :hello},
        {<<98, 5::32>>, 5},
        {<<110, 1, 0, 5>>, 5},
        {<<110, 9, 0, 5, 0::64>>, 5},
        {<<111, 1::32, 1, 5>>, -5},
        {<<105, 2::32, 97, 1, 97, 2>>, {1, 2}},
        {<<108, 2::32, 97, ?a, 97, ?b, 106>>, ~c"ab"},
        {<<108, 0::32, 106>>, []},
        {<<107, 0::16>>, []},
        {<<77, 2::32, 8, "ab">>, "ab"},
        {<<103, name::binary, 38::32, 1::32, 2>>, pid(:n@h, 38, 1, 2)},
        {<<102, name::binary, 5::32, 2>>, port(:n@h, 5, 2)},
        {<<101, name::binary, 5::32, 2>>, reference(:n@h, 2, [5])},
        {<<114, 3::16, name::binary, 2, 1::32, 2::32, 3::32>>, reference(:n@h, 2, [1, 2, 3])}
      ]

      for {bytes, term} <- spellings do
        payload = <<131, 104, 2, versionless(me)::binary, bytes::binary>>
        RawPeer.send_packet(raw, [112, encode({6, me, :"", :echo}), payload])

        {{:back, back}, _} =
          RawPeer.receive_until(raw, fn control, message ->
            to(control) == me and {:back, elem(message, 1)}
          end)

        assert back === term
      end

      RawPeer.close(raw)
    end

    defp to({22, _from, to}), do: to
    defp to({2, _unused, to}), do: to
    defp to(_), do: nil

    defp versionless(term) do
      <<131, bytes::binary>> = encode(term)
      bytes
    end

    test "check 20: ten thousand atoms in random order, twice", %{u: u} do
      atoms = for i <- 1..10_000, do: :"conformance_atom_#{i}"

      for _ <- 1..2 do
        shuffled = Enum.shuffle(atoms)
        for chunk <- Enum.chunk_every(shuffled, 100), do: assert(echo(u, chunk) === chunk)
      end

      # More in one message than a header may refer to, and one by one.
      assert echo(u, atoms) === atoms
      for atom <- Enum.take_random(atoms, 300), do: assert(echo(u, {atom}) === {atom})
    end

    test "check 20: from several processes at once", %{u: u} do
      1..8
      |> Task.async_stream(
        fn worker ->
          for i <- 1..300 do
            atoms = for j <- 1..20, do: :"conformance_#{rem(worker * i * j, 5_003)}"
            assert echo(u, {worker, atoms}) === {worker, atoms}
          end
        end,
        timeout: 60_000
      )
      |> Stream.run()
    end

    test "check 21: atoms of more than 255 bytes, new and known", %{u: u} do
      long = for i <- 1..20, do: String.to_atom(String.duplicate("ü", 200) <> "#{i}")
      for _ <- 1..3, do: assert(echo(u, {long, :short}) === {long, :short})
      emoji = for i <- 1..5, do: String.to_atom(String.duplicate("😀", 250) <> "#{i}")
      for atom <- emoji, _ <- 1..2, do: assert(echo(u, atom) === atom)
    end

    test "check 25: a list a million deep", %{u: u} do
      for depth <- [1_000, 100_000, 1_000_000] do
        deep = nested(depth)
        assert echo(u, deep, 60_000) === deep
      end

      tuples = Enum.reduce(1..100_000, {}, fn _, inner -> {inner} end)
      assert echo(u, tuples) === tuples
      maps = Enum.reduce(1..100_000, %{}, fn _, inner -> %{inner: inner} end)
      assert echo(u, maps) === maps
    end

    # `term_to_binary` makes compressed terms, distribution never does. OTP 25 closes the connection, a Rust node reads it.
    test "check 26: a compressed payload", %{u: u} do
      raw = RawPeer.connect!(u.node)
      me = RawPeer.pid(raw, 1)
      term = {me, List.duplicate(:again, 20_000)}
      <<131, 80, _::binary>> = compressed = :erlang.term_to_binary(term, [:compressed, minor_version: 2])
      RawPeer.send_packet(raw, [112, encode({6, me, :"", :echo}), compressed])

      case @kind do
        :beam ->
          RawPeer.await_closed(raw)

        :rust ->
          {back, _} =
            RawPeer.receive_until(raw, fn control, message -> to(control) == me and elem(message, 1) end)

          assert back == elem(term, 1)
      end

      RawPeer.close(raw)
      assert Target.on(u, :add, [1, 2]) == 3
    end
  end
end
