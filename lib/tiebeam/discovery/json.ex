defmodule Tiebeam.Discovery.JSON do
  @moduledoc false
  # JSON (RFC 8259) as Kubernetes' API answers it: OTP has a decoder only since release 27. Objects are maps with strings as keys, so
  # that no text from outside makes atoms. Numbers stay strings, as they are written: nothing here counts with them. Pure.

  # Objects and lists around a value: what the API answers has some twelve.
  @max_depth 64

  @number ~r/\A-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?/

  @doc """
  The value, or the offset in bytes at which the text is none.

      iex> Tiebeam.Discovery.JSON.decode(~S({"items": [{"ip": "10.0.0.5", "ready": true}, null, 4369]}))
      {:ok, %{"items" => [%{"ip" => "10.0.0.5", "ready" => true}, nil, "4369"]}}
      iex> Tiebeam.Discovery.JSON.decode(~S(["a\\"\\n\\u00e9\\ud83d\\ude00"]))
      {:ok, ["a\\"\\né😀"]}
      iex> for text <- ["", "[1,]", ~S({"a" 1}), "[1] 2", ~S("\\ud83d")], do: Tiebeam.Discovery.JSON.decode(text)
      [{:error, {:json, 0}}, {:error, {:json, 3}}, {:error, {:json, 5}}, {:error, {:json, 4}}, {:error, {:json, 1}}]
  """
  @spec decode(binary) :: {:ok, term} | {:error, {:json, non_neg_integer}}
  def decode(text) do
    case value(space(text), @max_depth) do
      {value, ""} -> {:ok, value}
      {_value, rest} -> throw({:none, rest})
    end
  catch
    {:none, rest} -> {:error, {:json, byte_size(text) - byte_size(rest)}}
  end

  # Each of these answers what it has read and what follows it, without the space between.
  defp value("{" <> _ = rest, 0), do: throw({:none, rest})
  defp value("[" <> _ = rest, 0), do: throw({:none, rest})
  defp value("{" <> rest, depth), do: object(space(rest), depth - 1)
  defp value("[" <> rest, depth), do: list(space(rest), depth - 1)
  defp value("\"" <> rest, _depth), do: string(rest, [])
  defp value("true" <> rest, _depth), do: {true, space(rest)}
  defp value("false" <> rest, _depth), do: {false, space(rest)}
  defp value("null" <> rest, _depth), do: {nil, space(rest)}

  defp value(rest, _depth) do
    case Regex.run(@number, rest) do
      [number] -> {number, rest |> drop(byte_size(number)) |> space()}
      nil -> throw({:none, rest})
    end
  end

  defp object("}" <> rest, _depth), do: {%{}, space(rest)}
  defp object(rest, depth), do: members(rest, depth, [])

  defp members("\"" <> rest, depth, members) do
    with {key, ":" <> rest} <- string(rest, []),
         {value, rest} <- value(space(rest), depth) do
      members = [{key, value} | members]

      case rest do
        "," <> rest -> members(space(rest), depth, members)
        "}" <> rest -> {Map.new(Enum.reverse(members)), space(rest)}
        rest -> throw({:none, rest})
      end
    else
      {_key, rest} -> throw({:none, rest})
    end
  end

  defp members(rest, _depth, _members), do: throw({:none, rest})

  defp list("]" <> rest, _depth), do: {[], space(rest)}
  defp list(rest, depth), do: elements(rest, depth, [])

  defp elements(rest, depth, elements) do
    {value, rest} = value(rest, depth)
    elements = [value | elements]

    case rest do
      "," <> rest -> elements(space(rest), depth, elements)
      "]" <> rest -> {Enum.reverse(elements), space(rest)}
      rest -> throw({:none, rest})
    end
  end

  # `parts` are those before `rest`, the last one first.
  defp string(rest, parts) do
    case :binary.match(rest, ["\"", "\\"]) do
      {at, 1} ->
        <<plain::binary-size(at), mark, after_mark::binary>> = rest
        unless String.valid?(plain), do: throw({:none, rest})

        if mark == ?" do
          {IO.iodata_to_binary(Enum.reverse([plain | parts])), space(after_mark)}
        else
          {character, after_mark} = escape(after_mark, drop(rest, at))
          string(after_mark, [character, plain | parts])
        end

      :nomatch ->
        throw({:none, rest})
    end
  end

  for {escaped, character} <-
        [?", ?\\, ?/, {?b, ?\b}, {?f, ?\f}, {?n, ?\n}, {?r, ?\r}, {?t, ?\t}]
        |> Enum.map(&if(is_tuple(&1), do: &1, else: {&1, &1})) do
    defp escape(<<unquote(escaped), rest::binary>>, _at), do: {<<unquote(character)>>, rest}
  end

  defp escape(<<?u, digits::binary-size(4), rest::binary>>, at) do
    case {unit(digits, at), rest} do
      {high, <<"\\u", digits::binary-size(4), rest::binary>>} when high in 0xD800..0xDBFF ->
        case unit(digits, at) do
          low when low in 0xDC00..0xDFFF ->
            {<<0x10000 + (high - 0xD800) * 0x400 + (low - 0xDC00)::utf8>>, rest}

          _alone ->
            throw({:none, at})
        end

      {alone, _rest} when alone in 0xD800..0xDFFF ->
        throw({:none, at})

      {unit, rest} ->
        {<<unit::utf8>>, rest}
    end
  end

  defp escape(_other, at), do: throw({:none, at})

  defp unit(digits, at) do
    if digits =~ ~r/\A[0-9A-Fa-f]{4}\z/, do: String.to_integer(digits, 16), else: throw({:none, at})
  end

  defp space(<<space, rest::binary>>) when space in ' \t\r\n', do: space(rest)
  defp space(rest), do: rest

  defp drop(text, bytes), do: binary_part(text, bytes, byte_size(text) - bytes)
end
